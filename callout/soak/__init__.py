"""``callout soak``: random calls of every kind from threads and tasks on several CPUs, with faults, and a ledger.

``_ledger`` accounts for every arming and says what may not be. ``_freebsd`` and ``_linux`` are what is called, round
after round, each in a system of its own; ``_faults`` is what goes wrong on purpose.
"""

__all__: list[str] = []
