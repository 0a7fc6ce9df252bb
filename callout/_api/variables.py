"""What C has as global variables, and the loops over them: here each system has its own, so they are calls."""

from __future__ import annotations

from .._core.machine import current_machine
from .._core.units import SBT_1S


def tick_sbt() -> int:
    """Return the length of a clock tick of the current system as sbintime, rounded down as the kernel has it.

    Never blocks. See kern_clock.c, ``tick_sbt``.
    """
    return SBT_1S // current_machine("tick_sbt").hz


def mp_maxid() -> int:
    """Return the highest number of a CPU of the current system. Never blocks. See sys/smp.h."""
    return len(current_machine("mp_maxid").cpus) - 1


def CPU_FOREACH() -> range:  # noqa: N802 - the kernel's name
    """Return the numbers of the CPUs of the current system, for a ``for`` loop. Never blocks. See sys/smp.h."""
    return range(len(current_machine("CPU_FOREACH").cpus))


__all__ = ["CPU_FOREACH", "mp_maxid", "tick_sbt"]
