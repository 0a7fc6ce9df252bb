"""All of a ``Subsystem`` but the timers: the base class for plain threading code that is to be judged."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from .._core.errors import CalloutError
from ._format import Scenario
from ._replay import Event
from ._schema import GIANT
from ._workbench import Workbench, WorkbenchThread


class RefusedError(CalloutError):
    """A call that the implementation refuses because it is a programming error; the trace says ``{"error": …}``."""


class KernelLock:
    """A lock of a scenario: a mutex, or a read/write lock. Giant may be acquired again by its owner.

    Waits for it are known to the workbench, and logged as ``waitlock`` when a CPU's thread waits.
    """

    def __init__(self, bench: Workbench, name: str, kind: str) -> None:
        self.name = name
        self.kind = kind
        """"mtx", "spin", "rw", or "giant"."""
        self._bench = bench
        self._owner: int | None = None
        self._depth = 0
        self._readers: set[int] = set()

    def acquire(self, shared: bool = False) -> None:
        """Acquire it, *shared* with other readers or exclusively; block until that is possible.

        Raises:
            RefusedError: this thread has it already, and it is not Giant; or it cannot be shared.
        """
        me = threading.get_ident()
        with self._bench.changed:
            if self._owner == me and self.kind == "giant":
                self._depth += 1
                return
            if self._owner == me or me in self._readers:
                raise RefusedError(f"this thread has {self.name} already")
            if shared and self.kind != "rw":
                raise RefusedError(f"{self.name} is no read/write lock")
            self._bench.wait(
                lambda: self._owner is None and (shared or not self._readers), what=f"waitlock {self.name}"
            )
            if shared:
                self._readers.add(me)
            else:
                self._owner, self._depth = me, 1

    def try_acquire(self, shared: bool = False) -> bool:
        """Acquire it if that is possible at once; return whether it was. Never blocks."""
        with self._bench.changed:
            if self._owner is not None or (self._readers and not shared):
                return False
            self.acquire(shared)
            return True

    def release(self, shared: bool = False) -> None:
        """Release it.

        Raises:
            RefusedError: this thread does not have it in this way.
        """
        me = threading.get_ident()
        with self._bench.changed:
            if self._bench.closing:
                return  # threads unwind, through waits that they never came back from
            if not self.owned(shared):
                raise RefusedError(f"this thread does not have {self.name}")
            if shared:
                self._readers.remove(me)
            elif self._depth > 1:
                self._depth -= 1
                return
            else:
                self._owner, self._depth = None, 0
            self._bench.changed.notify_all()

    def owned(self, shared: bool = False) -> bool:
        """Whether this thread has it exclusively, or *shared*."""
        me = threading.get_ident()
        return me in self._readers if shared else self._owner == me

    def release_all(self) -> int:
        """Release it however often this thread has it exclusively, also if not at all; return how often."""
        with self._bench.changed:
            depth = self._depth if self.owned() else 0
            for _ in range(depth):
                self.release()
            return depth


class Adapter:
    """A ``Subsystem`` that has threads, locks, gates, callback programs and the log: subclasses add the timers.

    A subclass has ``set_up()``, ``state()``, and for each operation of the format a method ``op_NAME`` that takes the
    operation's arguments and returns its result: ``op_reset(callout, ticks, fn, arg, cpu)``. What it lacks fails the
    scenarios that need it. The operations of locks are there. Its timers expire on threads of ``self.bench``, and then
    call ``self.callback()``.

    An operation runs on the scenario's thread that does it, or in a callback on the thread that runs this, and may
    block in anything of the workbench.
    """

    refusals: tuple[type[BaseException], ...] = (CalloutError,)
    """What an operation raises to say that the call is a programming error. Anything else fails the scenario."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.bench = Workbench()
        """Stands in for ``threading`` and ``time``."""
        kinds = {GIANT: "giant"} | scenario.locks
        self.locks = {name: KernelLock(self.bench, name, kind) for name, kind in kinds.items()}
        """The scenario's locks, and Giant."""
        self._log: dict[str, list[Event]] = {}
        self._open: set[str] = set()
        self._orders: dict[str, deque[Callable[[], None]]] = {name: deque() for name in scenario.threads}
        try:
            self.set_up()
            for name in scenario.threads:
                thread = self.bench.Thread(target=self._serve, name=name, args=(name,))
                thread.actor = name
                thread.start()
        except BaseException:
            self.bench.close()
            raise

    # -- what a subclass writes ----------------------------------------------------------------------------------

    def set_up(self) -> None:
        """Make the callouts of ``self.scenario.callouts``. Called once, before any thread runs."""
        raise NotImplementedError("set_up")

    def state(self, callout: str) -> list[int]:
        """Return ``[pending, active]`` of a callout, for Linux ``[pending]``."""
        raise NotImplementedError("state")

    # -- what it calls -------------------------------------------------------------------------------------------

    def callback(self, callout: str, fn: str, arg: int | None = None) -> None:
        """Run the program of function *fn*, as the callback of *callout*; log it under this thread's CPU.

        Blocks while it waits at a gate. On a thread that is not the workbench's it does nothing, and the scenario fails
        with an error that says so.
        """
        thread = threading.current_thread()
        if not isinstance(thread, WorkbenchThread) or thread.bench is not self.bench:
            # Raised here, it would be lost in a thread that nobody waits for.
            self.bench.fail(
                RuntimeError(
                    f"callback() on {thread.name}, which is no thread of self.bench: use self.bench.Thread and "
                    "self.bench.Timer where the code uses those of threading"
                )
            )
            return
        self._note(["call", callout, fn, arg])
        for op, *args in self.scenario.fns[fn]:
            if op == "gate":
                self._gate(args[0])
            else:
                self._note(["op", op, args[0], self._do(op, args)])
        self._note(["return", callout])

    def drained(self, callout: str) -> None:
        """Log that the function handed to ``async_drain`` was called."""
        self._note(["drained", callout])

    def misused(self, text: str) -> None:
        """Log that a callback has made a programming error that was noticed after it had returned."""
        self._note(["error", text])

    def on_cpu(self, cpu: int) -> None:
        """Have the current thread, which must be one of the workbench, be *cpu*. One that is not told is CPU 0."""
        thread = threading.current_thread()
        assert isinstance(thread, WorkbenchThread), "only a thread of self.bench can be a CPU"
        thread.actor = f"cpu{cpu}"

    def curcpu(self) -> int:
        """Return the CPU that the current thread is, or is on."""
        thread = threading.current_thread()
        actor = thread.actor if isinstance(thread, WorkbenchThread) else "cpu0"
        return self.scenario.thread_cpu.get(actor, 0) if actor in self._orders else int(actor.removeprefix("cpu"))

    # -- operations that all have --------------------------------------------------------------------------------

    def op_lock(self, lock: str) -> None:
        """Acquire a lock."""
        self.locks[lock].acquire()

    def op_unlock(self, lock: str) -> None:
        """Release a lock."""
        self.locks[lock].release()

    def op_rlock(self, lock: str) -> None:
        """Acquire a read/write lock for reading."""
        self.locks[lock].acquire(shared=True)

    def op_runlock(self, lock: str) -> None:
        """Release a read/write lock that was acquired for reading."""
        self.locks[lock].release(shared=True)

    # -- the rest of the Subsystem protocol ----------------------------------------------------------------------

    def begin(self, thread: str, op: str, args: tuple[Any, ...]) -> None:
        """Have a thread begin an operation."""

        def order() -> None:
            self._note(["ret", self._do(op, list(args))])

        with self.bench.changed:
            self._orders[thread].append(order)
            self.bench.changed.notify_all()

    def open_gate(self, gate: str) -> None:
        """Open a gate."""
        with self.bench.changed:
            self._open.add(gate)
            self.bench.changed.notify_all()

    def tick(self) -> None:
        """Move the time."""
        self.bench.tick()

    def settle(self) -> None:
        """Wait until nothing can run, and log which CPU began to wait for a lock."""
        self.bench.settle()
        for thread, what in self.bench.waiting():
            if thread.actor.startswith("cpu"):
                self._log.setdefault(thread.actor, []).append(what.split(" "))

    def events(self) -> dict[str, list[Event]]:
        """Return what was logged since the last call."""
        with self.bench.changed:
            log, self._log = self._log, {}
            return log

    def close(self) -> None:
        """End all threads, whatever they wait for."""
        self.bench.close()

    # -- inside --------------------------------------------------------------------------------------------------

    def _serve(self, name: str) -> None:
        orders = self._orders[name]
        while True:
            with self.bench.changed:
                self.bench.wait(lambda: bool(orders))
                order = orders.popleft()
            order()

    def _do(self, op: str, args: list[Any]) -> object:
        method = getattr(self, f"op_{op}", None)
        if method is None:
            raise NotImplementedError(f"op_{op}")
        try:
            result: object = method(*args)
        except self.refusals as error:
            return {"error": str(error)}
        return result

    def _note(self, event: Event) -> None:
        thread = threading.current_thread()
        actor = thread.actor if isinstance(thread, WorkbenchThread) else "cpu0"
        with self.bench.changed:
            self._log.setdefault(actor, []).append(event)

    def _gate(self, gate: str) -> None:
        with self.bench.changed:
            if gate not in self._open:
                self._note(["gate", gate])
                self.bench.wait(lambda: gate in self._open)
