"""``callout.guest.open_callouts``: a block of asyncio. The system itself is opened and left in the guest, by trio."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from types import TracebackType
from typing import Final

import trio

from ..._core.errors import GuestError
from ..._core.guard import protected
from ..._core.lifecycle import enter
from ..._core.machine import CURRENT
from ..._core.once import AsyncBlock
from ..._core.phases import STEPS, Phase
from ..._core.sleep import wake_all
from ..trio.forked import end_at_exit
from ..trio.opening import check_arguments, is_checking, open_on, raise_all
from ..trio.platform import in_task
from ..trio.reporting import OnError
from ..trio.system import CalloutSystem
from ..trio.telling import Top, check_top, teller
from .platform import GuestPlatform, running_loop
from .run import GuestRun, run_here
from .system import GuestSystem
from .waits import HostWaiter, Shield

_ABANDONED: Final = (
    "the callout system was closed: its asyncio loop has ended before its `async with callout.guest.open_callouts()` "
    "block was left"
)


class _NotNormallyError(Exception):
    """Leaves the block in the guest when its body in asyncio has ended by an exception."""


def opened(
    cpus: int,
    hz: int,
    alloweddeviation: int,
    checking: bool | None,
    on_error: OnError | None,
    expensive: float,
    top: Top,
) -> AsyncBlock[CalloutSystem]:
    """Return the block. See ``callout.guest.open_callouts()``."""
    check_arguments(cpus, hz, alloweddeviation, checking, on_error, expensive)
    check_top(top)
    return _HostBlock(
        "open_callouts", partial(_open_callouts, cpus, hz, alloweddeviation, checking, on_error, expensive, top)
    )


class _HostBlock(AsyncBlock[CalloutSystem]):
    """It is left where it was entered: to try it elsewhere changes nothing."""

    __slots__ = ("_host", "_process")

    async def __aenter__(self) -> CalloutSystem:
        self._host = running_loop()
        self._process = os.getpid()
        return await super().__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        host = getattr(self, "_host", None)  # it may never have been entered
        elsewhere = host is not None and running_loop() is not host and not host.is_closed()
        # With GeneratorExit the task is garbage; a forked child has no running loop, and ends here.
        if elsewhere and not isinstance(error, GeneratorExit) and self._process == os.getpid():
            raise GuestError(
                "open_callouts: leave the block in a task of the loop that it was entered in", call="open_callouts"
            )
        return await super().__aexit__(kind, error, traceback)


def _check_loop() -> asyncio.AbstractEventLoop:
    """Return the loop. Raise unless this is a task of it, and it has no guest."""
    host = running_loop()
    if host is None:
        raise GuestError(
            "open_callouts: there is no loop of asyncio here; call it in a task of asyncio.run(main). In a task of "
            "trio use callout.open_callouts()",
            call="open_callouts",
        )
    if asyncio.current_task(host) is None:
        raise GuestError(
            "open_callouts: this is no task of asyncio, but "
            + ("a task of trio, its guest; use callout.open_callouts()" if in_task() else "a callback of its loop"),
            call="open_callouts",
        )
    run = run_here()
    if run is not None and run.host is host:
        raise GuestError(
            "open_callouts: this loop has a callout system already; pass the system along, or use current_system()",
            call="open_callouts",
        )
    if run is not None:
        raise GuestError(
            "open_callouts: another loop of this thread has a callout system; leave that first, or close that loop",
            call="open_callouts",
        )
    if trio.lowlevel.in_trio_run():
        raise GuestError(
            "open_callouts: trio is a guest of this loop already; use callout.open_callouts() in a task of trio",
            call="open_callouts",
        )
    return host


class _Guest:
    """One system in one loop."""

    def __init__(
        self,
        host: asyncio.AbstractEventLoop,
        cpus: int,
        hz: int,
        alloweddeviation: int,
        checking: bool,
        on_error: OnError | None,
        expensive: float,
        top: Top,
    ) -> None:
        self._options = (cpus, hz, alloweddeviation, checking, on_error, expensive)
        self._top = top
        self._host = host
        self._run = GuestRun(host, self._main, self._lost)
        self._up = HostWaiter(host)  # it is up, or never will be
        self.system: GuestSystem | None = None  # when it is up
        self._made: GuestSystem | None = None
        self._leave = trio.Event()
        self._normally = False
        self._interrupted = False

    # -- in the guest ----------------------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def _main(self) -> None:
        def new_system(*args: object) -> CalloutSystem:
            self._made = GuestSystem(*args)  # type: ignore[arg-type]  # as open_on() gives them
            return self._made

        try:
            with teller(self._top) as tells:
                platform = GuestPlatform(self._host)
                async with open_on(platform, *self._options, tells, new_system) as system:
                    assert isinstance(system, GuestSystem)
                    self.system = system
                    self._up.set_here()
                    await self._until_left()
                    if not self._normally:
                        raise _NotNormallyError
        finally:
            self._up.set_here()

    @trio.lowlevel.enable_ki_protection
    async def _until_left(self) -> None:
        while not self._leave.is_set():
            try:
                await self._leave.wait()
            except KeyboardInterrupt:
                self._host.call_soon(_interrupt)

    # -- in tasks of the host --------------------------------------------------------------------------------------

    @protected
    async def enter(self) -> CalloutSystem:
        """Start the run; return the system when it is up."""
        self._run.start()
        with Shield(raises=False) as shield:
            await self._up.wait()
            if self.system is None:
                await self._run.over()
        system = self.system
        if system is None:
            raise self._run.error or GuestError("open_callouts: the guest has ended", call="open_callouts")
        system.body.entered(asyncio.current_task())
        if shield.cancelled is not None:
            await self.leave(shield.cancelled)
        return system

    @protected
    async def leave(self, left: BaseException | None) -> None:
        """End the system and the run; raise what has to leave the block. *left* is what has left its body."""
        system = self.system
        assert system is not None, "it was entered"
        if system._machine.phase is Phase.FORKED:
            end_at_exit(left)
        if not self._run.is_over and running_loop() is not self._host:
            assert isinstance(left, GeneratorExit), "its block refuses all else"
            raise left  # the task is garbage: the run ends when its loop is closed
        system.body.left()
        if not self._run.is_over:  # else the loop was closed meanwhile
            self._normally = left is None and not system._errors
            home = system._platform.loops[0]
            home.post(self._leave.set)
            if left is None:
                try:
                    await self._run.over()
                except asyncio.CancelledError as error:
                    left = error
                    home.post(system._end_the_body)
            with Shield(raises=False) as shield:
                await self._run.over()
            left = left or shield.cancelled
        try:
            self._raise(system, left)
        finally:
            del left  # its traceback refers to this frame

    def _raise(self, system: GuestSystem, left: BaseException | None) -> None:
        errors = list(system._errors)
        own = self._run.error
        for error in own.exceptions if isinstance(own, BaseExceptionGroup) else () if own is None else (own,):
            if isinstance(error, KeyboardInterrupt) and (left is None or isinstance(left, asyncio.CancelledError)):
                left = error  # it came while the block was being left
            elif not isinstance(error, _NotNormallyError) and error not in errors:
                errors.append(error)
        if errors and isinstance(left, asyncio.CancelledError):
            left = None  # as in a TaskGroup
        raise_all(left, errors)

    # -- a loop that is closed, or a guest that has failed ------------------------------------------------------------

    def _lost(self, error: Exception | None) -> None:
        system = self.system
        if error is not None:
            self._up.set_here()
            system = self._made
            if system is None or system._leaving is None:
                return
            system._machine.attached["closed"] = f"the callout system was closed: its guest has failed with {error!r}"
            system._errors.append(error)
            _bury(system)
            system.body.cancel()
            return
        if system is None:  # it was closed while the block was entered
            self._leave.set()
            return
        system._machine.attached["closed"] = _ABANDONED
        system.body.left()
        if threading.get_ident() == self._run.thread:
            system._abandon()
            self._leave.set()
        else:
            _bury(system)


def _bury(system: GuestSystem) -> None:
    """Close a system whose CPU 0 cannot go on. From any thread."""
    machine = system._machine
    assert system._leaving is not None, "it is open"
    system._leaving.by_force_but_cpu_0()
    for phase in (Phase.CANCELLING, Phase.QUIESCING, Phase.CLOSED):
        if phase in STEPS[machine.phase]:
            enter(machine, phase)
    wake_all(machine)


def _interrupt() -> None:
    """Ctrl-C came in the middle of the engine, and was held back until here."""
    raise KeyboardInterrupt


@asynccontextmanager
@protected
async def _open_callouts(
    cpus: int,
    hz: int,
    alloweddeviation: int,
    checking: bool | None,
    on_error: OnError | None,
    expensive: float,
    top: Top,
) -> AsyncIterator[CalloutSystem]:
    guest = _Guest(_check_loop(), cpus, hz, alloweddeviation, is_checking(checking), on_error, expensive, top)
    system = await guest.enter()
    token = CURRENT.set(system._machine)
    left: BaseException | None = None
    try:
        try:
            yield system
        except BaseException as error:
            left = error
        finally:
            with suppress(ValueError):  # left in another context than entered in, as test fixtures may be
                CURRENT.reset(token)
        await guest.leave(left)
    finally:
        del left  # its traceback refers to this frame


__all__ = ["opened"]
