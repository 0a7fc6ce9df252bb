"""The FreeBSD ops of the traces, done with the public API."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ..._api.callout import Callout
from ..._api.callout9 import (
    callout_active,
    callout_deactivate,
    callout_drain_sync,
    callout_init_rw,
    callout_pending,
    callout_reset_on,
    callout_reset_sbt,
    callout_reset_sbt_on,
    callout_schedule,
    callout_schedule_on,
    curcpu,
    giant,
)
from ..._core.cpu import STARTED, Run
from ..._core.errors import CalloutError
from ..._core.short import callout_init, callout_init_mtx, callout_reset, callout_stop
from ..._core.units import (
    C_DIRECT_EXEC,
    CALLOUT_RETURNUNLOCKED,
    CALLOUT_SHAREDLOCK,
    CALLOUT_TRYLOCK,
    SBT_1MS,
)
from ..._locks.mutex import MTX_SPIN, Mtx
from ..._locks.rwlock import RwLock
from ...freebsd13 import callout_async_drain
from .._format import Scenario
from .._replay import Event
from .._worlds.world import World

_FLAGS = {
    "RETURNUNLOCKED": CALLOUT_RETURNUNLOCKED,
    "SHAREDLOCK": CALLOUT_SHAREDLOCK,
    "TRYLOCK": CALLOUT_TRYLOCK,
}


class Dialect:
    """What the two dialects share: locks, threads, gates, callback programs and the log."""

    def __init__(self, scenario: Scenario, world: World) -> None:
        self.scenario = scenario
        self.world = world
        self.log: dict[str, list[Event]] = {}
        self.locks: dict[str, Mtx | RwLock] = {}
        self.ops: dict[str, Callable[..., object]] = {
            "lock": self._lock,
            "unlock": self._unlock,
            "rlock": lambda name: self._rw(name).rlock(),
            "runlock": lambda name: self._rw(name).runlock(),
        }
        self._stood: dict[int, Run] = {}  # CPU -> the run whose waiting was logged
        world.machine.report = self._report
        world.enter(self._set_up)

    def _set_up(self) -> None:
        self.locks["Giant"] = giant()
        for name, kind in self.scenario.locks.items():
            if kind == "rw":
                self.locks[name] = RwLock(name)
            else:
                self.locks[name] = Mtx(name, MTX_SPIN if kind == "spin" else 0)
        for name, how in self.scenario.callouts.items():
            self.make(name, how)

    def make(self, name: str, how: dict[str, Any]) -> None:
        """Initialise a callout."""
        raise NotImplementedError

    def state(self, callout: str) -> list[int]:
        """Return its state."""
        raise NotImplementedError

    # -- locks ---------------------------------------------------------------------------------------------------

    def _rw(self, name: str) -> RwLock:
        lock = self.locks[name]
        assert isinstance(lock, RwLock)
        return lock

    def _lock(self, name: str) -> None:
        self.locks[name].__enter__()

    def _unlock(self, name: str) -> None:
        self.locks[name].__exit__()

    # -- callbacks -----------------------------------------------------------------------------------------------

    def note(self, event: Event) -> None:
        """Log an event of the CPU on which this runs."""
        self.log.setdefault(f"cpu{curcpu()}", []).append(event)

    def callback(self, callout: str, fn: str, arg: object) -> None:
        """Run a callback's program."""
        self.note(["call", callout, fn, arg])
        for op, *args in self.scenario.fns[fn]:
            if op == "gate":
                self.world.wait_at_gate(args[0], partial(self.note, ["gate", args[0]]))
                continue
            result = self._do(op, tuple(args))
            self.note(["op", op, args[0], result])
        self.note(["return", callout])

    def _do(self, op: str, args: tuple[Any, ...]) -> object:
        try:
            return self.ops[op](*args)
        except CalloutError as error:
            return {"error": str(error)}

    def _report(self, error: BaseException, c: object) -> None:
        self.note(["error", f"{type(error).__name__}: {error}"])

    # -- the Subsystem protocol ----------------------------------------------------------------------------------

    def begin(self, thread: str, op: str, args: tuple[Any, ...]) -> None:
        """Have a thread begin an operation."""

        def thunk() -> None:
            result = self._do(op, args)
            self.log.setdefault(thread, []).append(["ret", result])

        self.world.post(thread, thunk)

    def open_gate(self, gate: str) -> None:
        """Open a gate."""
        self.world.open_gate(gate)

    def tick(self) -> None:
        """Move time."""
        self.world.tick()

    def settle(self) -> None:
        """Wait for quiescence, and log which softclock stands at a lock since then."""
        self.world.settle()
        for cpu in self.world.machine.cpus:
            run = cpu.softclock.run
            if run is not None and run.state != STARTED and self._stood.get(cpu.id) is not run:
                self._stood[cpu.id] = run
                assert run.lock is not None
                self.log.setdefault(f"cpu{cpu.id}", []).append(["waitlock", run.lock.name])

    def events(self) -> dict[str, list[Event]]:
        """Return what was logged."""
        log, self.log = self.log, {}
        return log

    def close(self) -> None:
        """Throw everything away."""
        self.world.close()


class FreeBSD(Dialect):
    """callout(9) as a ``Subsystem``."""

    def __init__(self, scenario: Scenario, world: World) -> None:
        self.callouts: dict[str, Callout] = {}
        self._fns: dict[tuple[str, str], Callable[[object], None]] = {}
        super().__init__(scenario, world)
        self.ops |= {
            "reset": self._reset,
            "reset_direct": self._reset_direct,
            "schedule": self._schedule,
            "stop": lambda c: callout_stop(self.callouts[c]),
            "drain": lambda c: callout_drain_sync(self.callouts[c]),
            "async_drain": self._async_drain,
            "deactivate": lambda c: callout_deactivate(self.callouts[c]),
        }

    def make(self, name: str, how: dict[str, Any]) -> None:
        """Initialise a callout."""
        c = self.callouts[name] = Callout()
        if how["init"] != "lock":
            callout_init(c, int(how["init"] == "mpsafe"))
            return
        lock = self.locks[how["lock"]]
        flags = sum(_FLAGS[flag] for flag in how["flags"])
        if isinstance(lock, Mtx):
            callout_init_mtx(c, lock, flags)
        else:
            callout_init_rw(c, lock, flags)

    def state(self, callout: str) -> list[int]:
        """Return pending and active."""
        c = self.callouts[callout]
        return [callout_pending(c), callout_active(c)]

    def _fn(self, callout: str, fn: str) -> Callable[[object], None]:
        """One function a callout and program, so that the log can tell whose it is."""
        key = (callout, fn)
        if key not in self._fns:
            self._fns[key] = partial(self.callback, callout, fn)
        return self._fns[key]

    def _reset(self, name: str, ticks: int, fn: str, arg: int, cpu: int | None) -> int:
        if cpu is None:
            return callout_reset(self.callouts[name], ticks, self._fn(name, fn), arg)
        return callout_reset_on(self.callouts[name], ticks, self._fn(name, fn), arg, cpu)

    def _reset_direct(self, name: str, ticks: int, fn: str, arg: int, cpu: int | None) -> int:
        sbt = max(ticks, 1) * SBT_1MS
        if cpu is None:
            return callout_reset_sbt(self.callouts[name], sbt, 0, self._fn(name, fn), arg, C_DIRECT_EXEC)
        return callout_reset_sbt_on(self.callouts[name], sbt, 0, self._fn(name, fn), arg, cpu, C_DIRECT_EXEC)

    def _schedule(self, name: str, ticks: int, cpu: int | None) -> int:
        if cpu is None:
            return callout_schedule(self.callouts[name], ticks)
        return callout_schedule_on(self.callouts[name], ticks, cpu)

    def _async_drain(self, name: str, tag: str) -> int:
        def drained(arg: object) -> None:
            self.note(["drained", name])

        return callout_async_drain(self.callouts[name], drained)
