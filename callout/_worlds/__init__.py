"""The worlds in which the engine runs: ``trio`` (loops, threads), ``virtual`` (deterministic), ``manual`` (no loop)."""
