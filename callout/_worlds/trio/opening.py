"""``open_callouts``: all of a system comes up, or nothing is left of it; and how it is left (``leaving`` does that)."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from contextvars import copy_context
from functools import partial
from typing import Final

import trio

from ..._api.callout import Callout
from ..._core.checks import check_bool
from ..._core.describe import shown
from ..._core.errors import ArgumentTypeError, ArgumentValueError, ClockError, LoopError
from ..._core.lifecycle import boot, check_options, enter
from ..._core.machine import CURRENT, Machine
from ..._core.once import AsyncBlock
from ..._core.phases import Phase
from ..._core.units import NEVER, NS_PER_S
from . import current
from .cpus import CpuRunner
from .forked import end_at_exit
from .leaving import Leaving, insist
from .log import tell
from .platform import TrioPlatform, in_asyncio, in_task
from .reporting import OnError, check_on_error
from .system import CalloutSystem
from .telling import Teller, Top, check_top, teller

NewSystem = Callable[[Machine, TrioPlatform, OnError | None], CalloutSystem]

SOFTCLOCK_BUDGET: Final = 2_000_000  # ns for which softclock keeps the loop to itself


def is_checking(checking: bool | None) -> bool:
    """Return whether checking mode is on: what was asked for, else whether a test of pytest runs."""
    return ("PYTEST_CURRENT_TEST" in os.environ and "pytest" in sys.modules) if checking is None else checking


def check_arguments(
    cpus: int, hz: int, alloweddeviation: int, checking: object, on_error: object, expensive: object
) -> None:
    check_options("open_callouts", cpus, hz, alloweddeviation)
    if checking is not None:
        check_bool("open_callouts", "checking", checking)
    check_on_error(on_error)
    if not isinstance(expensive, int | float):
        raise ArgumentTypeError(
            f"open_callouts: expensive must be a number of seconds, not {shown(expensive)}", call="open_callouts"
        )
    if not expensive > 0:
        raise ArgumentValueError(
            f"open_callouts: expensive must be a number of seconds above 0, got {shown(expensive)}",
            call="open_callouts",
        )


def _check_loop() -> None:
    """Raise unless this is a task of trio."""
    if not in_task():
        if in_asyncio():
            raise LoopError(
                "open_callouts: this is an asyncio loop, and callouts run on a trio loop. Use "
                "`async with callout.guest.open_callouts()`, which has one as a guest of this loop; or run the whole "
                'program on trio: trio.run(main), or anyio.run(main, backend="trio")',
                call="open_callouts",
            )
        raise LoopError(
            "open_callouts: there is no trio loop here; call it in a task of trio.run(main)", call="open_callouts"
        )


def open_callouts(
    cpus: int = 1,
    hz: int = 1000,
    *,
    alloweddeviation: int = 0,
    checking: bool | None = None,
    on_error: OnError | None = None,
    expensive: float = 0.1,
    top: Top = False,
) -> AsyncBlock[CalloutSystem]:
    """Open a callout system for an ``async with`` block, inside which it is the current one.

    *cpus*: CPU 0 is this loop, each other a thread with a loop of its own. *hz*: clock ticks in a second.
    *alloweddeviation*: by how many per cent of its interval a callout may be late so that wake-ups are shared
    (``kern.timecounter.alloweddeviation``). *checking*: whether the locks that each thread holds are tracked, so that
    sleeping with one is an error; by default only under pytest. *on_error*: called with an exception that leaves a
    callback, and the callout; without it the exception leaves through this block, as one of a nursery's child does.
    *expensive*: in seconds; a callback that takes longer, and a callout that is later than that because the loop was
    blocked, is named in the log. *top*: with True, or the path of a socket to be made, ``callout top`` can look at the
    system, from processes of the same user: at ``stats()`` and the first 50 of ``callouts()``, and nothing else.

    It is the current system of this task and of the tasks that it starts. Any other task of this loop, unless a system
    is bound to it, finds the innermost one that is open here.

    Leaving the block normally waits for the tasks that ``system.cpu(n).start_soon()`` was given before the body ended,
    and for those that they start; leaving it by an exception or a cancellation cancels them. Then it stops what is
    pending, and waits until nothing runs.

    Raises:
        ArgumentTypeError, ArgumentValueError: an option is wrong.
        ClockError: more than one CPU under a clock that is not the system's.
        LoopError: this is no task of trio.
        BusyError: what this has returned was entered before: one call for each block.
        OSError, RuntimeError: there is no descriptor or thread left for a CPU, or the socket of *top* cannot be made;
            then nothing was opened.
    """
    check_arguments(cpus, hz, alloweddeviation, checking, on_error, expensive)
    check_top(top)
    return AsyncBlock(
        "open_callouts", partial(_open_callouts, cpus, hz, alloweddeviation, checking, on_error, expensive, top)
    )


@asynccontextmanager
@trio.lowlevel.enable_ki_protection
async def _open_callouts(
    cpus: int,
    hz: int,
    alloweddeviation: int,
    checking: bool | None,
    on_error: OnError | None,
    expensive: float,
    top: Top,
) -> AsyncIterator[CalloutSystem]:
    _check_loop()
    platform = TrioPlatform()
    if platform.follows_trio and cpus > 1:
        raise ClockError(
            f"open_callouts: a mock clock drives the loop that it was given to and no other; use cpus=1, not {cpus}",
            call="open_callouts",
        )
    with teller(top) as tells:
        async with open_on(
            platform, cpus, hz, alloweddeviation, is_checking(checking), on_error, expensive, tells
        ) as system:
            yield system


@asynccontextmanager
@trio.lowlevel.enable_ki_protection
async def open_on(
    platform: TrioPlatform,
    cpus: int,
    hz: int,
    alloweddeviation: int,
    checking: bool,
    on_error: OnError | None,
    expensive: float,
    tells: Teller | None = None,
    new_system: NewSystem = CalloutSystem,
) -> AsyncIterator[CalloutSystem]:
    """Open a system on *platform*. See ``open_callouts``; *tells*: what it is looked at by."""
    system = _build(platform, cpus, hz, alloweddeviation, checking, on_error, expensive, new_system)
    machine = system._machine
    context = copy_context()
    context.run(CURRENT.set, machine)
    platform.power_on(0, context)
    left: BaseException | None = None
    try:
        async with trio.open_nursery() as crew:
            runners = [CpuRunner(system, number) for number in range(cpus)]
            system._leaving = Leaving(system, runners)
            try:
                context.run(crew.start_soon, system._watch.run)
                context.run(runners[0].start_here, crew)
                await _come_up(runners)
                enter(machine, Phase.OPEN)
                current.opened(machine)
                if tells is not None:
                    context.run(partial(crew.start_soon, tells.run, system, name="callout top"))
                tell("debug", "callout.opened", cpus=cpus, hz=hz)
                with system._body:
                    token = CURRENT.set(machine)
                    try:
                        yield system
                    finally:
                        with suppress(ValueError):  # left in another context than entered in, as test fixtures may be
                            CURRENT.reset(token)
            except BaseException as error:
                left = error
            if machine.phase is Phase.FORKED:
                end_at_exit(left)
            try:
                left = await system._leaving.leave(crew, left)
            except BaseException:  # not even that could be begun: no memory is left
                system._leaving.by_force()
                raise
            finally:
                if tells is not None:
                    tells.stop()
    finally:
        current.closed(machine)
        platform.power_off(0)
        tell("debug", "callout.closed")
    try:
        raise_all(left, system._errors)
    finally:
        del left  # its traceback refers to this frame


def _build(
    platform: TrioPlatform,
    cpus: int,
    hz: int,
    alloweddeviation: int,
    checking: bool,
    on_error: OnError | None,
    expensive: float,
    new_system: NewSystem,
) -> CalloutSystem:
    """Make a system of which nothing runs yet."""
    machine = boot(
        platform,
        kind=Callout,
        cpus=cpus,
        hz=hz,
        alloweddeviation=alloweddeviation,
        checking=checking,
    )
    machine.epoch = platform.epoch()
    system = new_system(machine, platform, on_error)
    platform.fail = system._fail
    machine.report = system._reporter.report
    machine.expensive = system._reporter.expensive
    machine.unlocked = system._reporter.unlocked
    machine.waits = system._watch.waits
    machine.budget = SOFTCLOCK_BUDGET
    machine.slow = round(min(expensive * NS_PER_S, NEVER))
    return system


async def _come_up(runners: list[CpuRunner]) -> None:
    """Start the threads, and wait until every CPU is up. Raise what kept one from it."""
    interrupt: KeyboardInterrupt | None = None
    for runner in runners[1:]:
        runner.start_thread()
    for runner in runners:
        interrupt = await insist(runner.up) or interrupt
    for error in (interrupt, *(runner.error for runner in runners)):
        if error is not None:
            raise error


def raise_all(left: BaseException | None, errors: list[BaseException]) -> None:
    """Raise what has to leave the block: the body's own exception as it is, if it is alone."""
    if left is None:
        if errors:
            raise BaseExceptionGroup("callouts", errors)
    elif errors:
        raise BaseExceptionGroup("callouts", [left, *errors])
    else:
        raise left
