"""The worlds in which the engine runs: ``trio`` (real loops and threads) and ``virtual`` (deterministic)."""
