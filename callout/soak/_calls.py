"""The calls of callout(9) that arm, look and drain, and the methods that do the same; and the kinds of callouts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, NamedTuple

from .. import (
    ARM_IF_EARLIER,
    ARM_IF_IDLE,
    ARM_IF_PENDING,
    ARM_STAY,
    ARM_UNCHANGED,
    C_ABSOLUTE,
    C_HARDCLOCK,
    C_PREL,
    CALLOUT_RETURNUNLOCKED,
    CALLOUT_SHAREDLOCK,
    CALLOUT_TRYLOCK,
    MTX_SPIN,
    SBT_1MS,
    Callout,
    Mtx,
    ResetResult,
    RmLock,
    RwLock,
    callout_active,
    callout_arm,
    callout_arm_curcpu,
    callout_arm_on,
    callout_armed_with,
    callout_drain,
    callout_drain_sync,
    callout_pending,
    callout_reset,
    callout_reset_curcpu,
    callout_reset_on,
    callout_reset_sbt,
    callout_reset_sbt_curcpu,
    callout_reset_sbt_on,
    callout_running,
    callout_schedule,
    callout_schedule_curcpu,
    callout_schedule_on,
    callout_schedule_sbt,
    callout_schedule_sbt_curcpu,
    callout_schedule_sbt_on,
    callout_terminated,
    current_system,
    giant,
    mtx_init,
    rm_init,
    rw_init,
    sbinuptime,
    sbttons,
    ticks,
)
from ._ledger import Arming
from ._round import TICK

Lock = Mtx | RwLock | RmLock


class Kind(NamedTuple):
    """A kind of callout."""

    name: str
    lock: Callable[[str], Lock] | None = None
    flags: int = 0
    direct: bool = False


KINDS: Final = (
    Kind("mpsafe"),
    Kind("Giant", lambda _: giant()),
    Kind("mutex", mtx_init),
    Kind("mutex, CALLOUT_TRYLOCK", mtx_init, CALLOUT_TRYLOCK),
    Kind("mutex, CALLOUT_RETURNUNLOCKED", mtx_init, CALLOUT_RETURNUNLOCKED),
    Kind("spin mutex, C_DIRECT_EXEC", lambda name: mtx_init(name, None, MTX_SPIN), direct=True),
    Kind("C_DIRECT_EXEC", direct=True),
    Kind("rwlock", rw_init),
    Kind("rwlock, CALLOUT_SHAREDLOCK", rw_init, CALLOUT_SHAREDLOCK),
    Kind("rmlock", rm_init),
    Kind("rmlock, CALLOUT_SHAREDLOCK", rm_init, CALLOUT_SHAREDLOCK),
)

Reset = Callable[[Callout, int, Callable[[Arming], object], Arming, int, int], int | ResetResult]
Schedule = Callable[[Callout, int, int, int], int | ResetResult]


class Way(NamedTuple):
    """A call that arms: how, and after how many ns the callback may run at the earliest; *flags* come to it."""

    reset: Reset
    delay: Callable[[int], int]
    facts: bool = False  # it returns facts
    if_pending: bool = False


def _in_ticks(n: int) -> int:
    return n * TICK


def _in_sbt(n: int) -> int:
    return sbttons(n * SBT_1MS)


def _until(n: int) -> int:
    return sbttons(n * SBT_1MS) - 1  # the present, from which it counts, was rounded down


def _at_tick(n: int) -> int:
    return (n - 1) * TICK  # the present tick may be over soon


# n is in ticks, x further flags; a tick is a millisecond.
RESETS: Final[Mapping[str, Way]] = {
    "callout_reset": Way(lambda c, n, f, a, cpu, x: callout_reset(c, n, f, a), _in_ticks),
    "c.reset": Way(lambda c, n, f, a, cpu, x: c.reset(n / 1000, f, a), _in_ticks),
    "c.reset_at": Way(
        lambda c, n, f, a, cpu, x: c.reset_at(current_system().current_time() + n / 1000, f, a), _in_ticks
    ),
    "callout_reset_on": Way(lambda c, n, f, a, cpu, x: callout_reset_on(c, n, f, a, cpu), _in_ticks),
    "callout_reset_curcpu": Way(lambda c, n, f, a, cpu, x: callout_reset_curcpu(c, n, f, a), _in_ticks),
    "callout_reset_sbt": Way(lambda c, n, f, a, cpu, x: callout_reset_sbt(c, n * SBT_1MS, 0, f, a, x), _in_sbt),
    "callout_reset_sbt, C_ABSOLUTE": Way(
        lambda c, n, f, a, cpu, x: callout_reset_sbt(c, sbinuptime() + n * SBT_1MS, 0, f, a, x | C_ABSOLUTE), _until
    ),
    "callout_reset_sbt, C_HARDCLOCK": Way(
        lambda c, n, f, a, cpu, x: callout_reset_sbt(c, n * SBT_1MS, 0, f, a, x | C_HARDCLOCK), _in_sbt
    ),
    "callout_reset_sbt, C_PREL": Way(
        lambda c, n, f, a, cpu, x: callout_reset_sbt(c, n * SBT_1MS, 0, f, a, x | C_PREL(2)), _in_sbt
    ),
    "callout_reset_sbt_on": Way(
        lambda c, n, f, a, cpu, x: callout_reset_sbt_on(c, n * SBT_1MS, 0, f, a, cpu, x), _in_sbt
    ),
    "callout_reset_sbt_curcpu": Way(
        lambda c, n, f, a, cpu, x: callout_reset_sbt_curcpu(c, n * SBT_1MS, 0, f, a, x), _in_sbt
    ),
    "callout_arm": Way(lambda c, n, f, a, cpu, x: callout_arm(c, ticks() + n, f, a), _at_tick, facts=True),
    "callout_arm_on": Way(
        lambda c, n, f, a, cpu, x: callout_arm_on(c, ticks() + n, f, a, cpu, ARM_STAY), _at_tick, facts=True
    ),
    "callout_arm_curcpu": Way(
        lambda c, n, f, a, cpu, x: callout_arm_curcpu(c, ticks() + n, f, a, ARM_UNCHANGED), _at_tick, facts=True
    ),
    "callout_arm, ARM_IF_IDLE": Way(
        lambda c, n, f, a, cpu, x: callout_arm(c, ticks() + n, f, a, ARM_IF_IDLE), _at_tick, facts=True
    ),
    "callout_arm, ARM_IF_EARLIER": Way(
        lambda c, n, f, a, cpu, x: callout_arm(c, ticks() + n, f, a, ARM_IF_EARLIER), _at_tick, facts=True
    ),
    "callout_arm, ARM_IF_PENDING": Way(
        lambda c, n, f, a, cpu, x: callout_arm(c, ticks() + n, f, a, ARM_IF_PENDING), _at_tick, True, if_pending=True
    ),
}
DIRECT: Final = tuple(name for name in RESETS if "sbt" in name)  # C_DIRECT_EXEC can be said

SCHEDULES: Final[Mapping[str, Schedule]] = {
    "callout_schedule": lambda c, n, cpu, x: callout_schedule(c, n),
    "c.reset, as it was": lambda c, n, cpu, x: c.reset(n / 1000),
    "callout_schedule_on": lambda c, n, cpu, x: callout_schedule_on(c, n, cpu),
    "callout_schedule_curcpu": lambda c, n, cpu, x: callout_schedule_curcpu(c, n),
    "callout_schedule_sbt": lambda c, n, cpu, x: callout_schedule_sbt(c, n * SBT_1MS, 0, x),
    "callout_schedule_sbt_on": lambda c, n, cpu, x: callout_schedule_sbt_on(c, n * SBT_1MS, 0, cpu, x),
    "callout_schedule_sbt_curcpu": lambda c, n, cpu, x: callout_schedule_sbt_curcpu(c, n * SBT_1MS, 0, x),
}

SEEN: Final[Mapping[str, Callable[[Callout], object]]] = {
    "callout_pending": callout_pending,
    "callout_active": callout_active,
    "callout_running": callout_running,
    "callout_terminated": callout_terminated,
    "callout_armed_with": lambda c: callout_armed_with(c, None),
    "c.pending": lambda c: c.pending,
    "c.running": lambda c: c.running,
    "c.closed": lambda c: c.closed,
    "c.deadline": lambda c: c.deadline,
    "c.remaining": Callout.remaining,
    "repr": repr,
}


def told(result: int | ResetResult) -> tuple[int, bool | None]:
    """Return what an arming has returned as C has it; and whether it was refused, if that was said."""
    if isinstance(result, ResetResult):
        return result is ResetResult.REARMED, not result
    return result, None


DRAINS: Final[tuple[tuple[str, Callable[[Callout], Awaitable[int]]], ...]] = (
    ("callout_drain", callout_drain),
    ("c.drain", Callout.drain),
)
DRAINS_SYNC: Final[tuple[tuple[str, Callable[[Callout], int]], ...]] = (
    ("callout_drain_sync", callout_drain_sync),
    ("c.drain_sync", Callout.drain_sync),
)
