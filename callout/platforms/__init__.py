"""The worlds in which the engine runs: ``trio_loops`` (real loops and threads) and ``virtual`` (deterministic virtual
SMP).
"""

__all__: list[str] = []
