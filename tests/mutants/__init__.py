"""Mutants of the engine: one for every check, ordering and wake-up of the core and the locks, and what kills each."""
