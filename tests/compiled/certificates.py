"""Certificates of the core of the matrix: ``python -m tests.compiled.certificates STEP``, of every STEP-th cell.

It prints which core has run, and for each cell the schedules, the switch points, those of the longest schedule, and a
digest of all final states. They are to be the same with ``CALLOUT_PURE=1`` and with a core that was compiled to be
explored.
"""

from __future__ import annotations

import hashlib
import sys

import callout
from tests.race.matrix import core


def main(step: int) -> None:
    """Search the cells."""
    print(callout.core)
    for cell, bound in core()[::step]:
        found = cell.explore(bound)
        states = hashlib.sha256("\n".join(sorted(found.final_states)).encode()).hexdigest()
        print(f"{cell.name}, {bound}: {found.schedules} {found.steps} {found.longest} {states[:16]}")


if __name__ == "__main__":
    main(int(sys.argv[1]))
