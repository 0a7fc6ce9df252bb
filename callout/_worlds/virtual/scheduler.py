"""Contexts, and who of them runs: greenlets that switch where the platform says so.

Whoever runs goes on until a *switch point*. There a *chooser* picks who runs next; nothing else is left to chance, so
the chooser's answers are the schedule.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeVar

from ..._core.errors import DeadlockError, LivelockError, MissingExtraError
from ..._core.platform import Thread

try:
    import greenlet
except ImportError as error:  # pragma: no cover - the test for it blocks the import in a process of its own
    raise MissingExtraError(
        "the virtual platform needs greenlet: install it with  pip install 'callout[explore]'"
    ) from error

T = TypeVar("T")


class Context:
    """One thread of control: a user thread, a CPU's interrupt, a CPU's softclock, or a task on a CPU."""

    __slots__ = ("bound", "cpu", "error", "greenlet", "name", "thread", "waits_for")

    def __init__(self, name: str, cpu: int | None, bound: int, thread: Thread) -> None:
        self.name = name
        self.cpu = cpu  # whose loop it is a task of
        self.bound = bound  # the current CPU, for a thread that is no loop
        self.thread = thread
        self.waits_for: Blocker | None = None
        self.error: BaseException | None = None
        self.greenlet: greenlet.greenlet

    def __repr__(self) -> str:
        return f"<{self.name}{'' if self.waits_for is None else f' waits for {self.waits_for.label}'}>"


class Blocker(Protocol):
    """What a context can wait for."""

    label: str

    def ready(self) -> bool:
        """Whether the wait is over."""
        ...


class Chooser(Protocol):
    """Picks who runs next."""

    def choose(self, runnable: Sequence[Context], current: Context | None) -> Context:
        """Return one of *runnable*, which is sorted by age and not empty.

        *current* is who stands at a switch point, if it could go on.
        """
        ...


class RunOn:
    """The default chooser: whoever runs goes on; then the oldest."""

    def choose(self, runnable: Sequence[Context], current: Context | None) -> Context:
        """Return *current* if it can go on."""
        return current if current is not None else runnable[0]


class _Quiet:
    """What a context waits for that wants everybody else to have come to a standstill."""

    label = "a standstill of all others"

    @staticmethod
    def ready() -> bool:
        """Never by itself: see ``_runnable``."""
        return False


class Scheduler:
    """Contexts under one chooser."""

    def __init__(self, chooser: Chooser | None, max_steps: int) -> None:
        self.chooser: Chooser = chooser or RunOn()
        self.max_steps = max_steps
        self.steps = 0
        self.contexts: list[Context] = []
        self.current: Context | None = None
        self.locked = 0  # CPU locks held by the current context
        self.loops: list[Context | None] = []  # who has the loop of each CPU
        self.errors: list[BaseException] = []  # what left a context
        self.outside = Context("outside", None, 0, "outside")
        self.off = False
        self._left: list[Context] = []  # have ended, in the act of switching to another
        self._hub = greenlet.getcurrent()
        self._depths: dict[Context, int] = {}

    def spawn(
        self, name: str, func: Callable[..., object], *args: object, cpu: int | None = None, bound: int = 0
    ) -> Context:
        r"""Start *func(\*args)* as a thread, or as a task of *cpu*. It runs when it is chosen."""
        context = Context(name, cpu, bound, name if cpu is None else ("cpu", cpu))

        def body() -> None:
            if cpu is not None:
                self.loops[cpu] = context
            try:
                func(*args)
            except greenlet.GreenletExit:
                raise
            except BaseException as error:
                context.error = error
            if self.off:
                return
            if cpu is not None and self.loops[cpu] is context:
                self.loops[cpu] = None
            self._leave(context)

        context.greenlet = greenlet.greenlet(body, parent=self._hub)
        context.greenlet.gr_context = contextvars.copy_context()
        self.contexts.append(context)
        return context

    def settle(self) -> None:
        """Run everything until nothing can run any more. Called from outside."""
        assert self.current is None, "settle() is for whoever drives the platform"
        while runnable := self._runnable():
            self._switch(self.chooser.choose(runnable, None))

    def wait_until_quiet(self) -> None:
        """Wait, as a context, until nobody else can run any more."""
        self.block(_Quiet())

    def point(self) -> None:
        """A switch point: somebody else may run here."""
        current = self.current
        if current is None or self.off:
            return
        self.steps += 1
        if self.steps > self.max_steps:
            raise LivelockError(
                f"no end after {self.max_steps} steps; is something re-arming itself, or retrying, for ever?"
            )
        runnable = self._runnable()
        if len(runnable) > 1:
            chosen = self.chooser.choose(runnable, current)
            if chosen is not current:
                self._switch(chosen)

    def block(self, blocker: Blocker) -> None:
        """Wait for *blocker*, keeping the CPU's loop."""
        if self.off:
            raise greenlet.GreenletExit
        current = self.current
        if current is None:
            if not blocker.ready():
                raise DeadlockError(f"whoever drives the platform would wait for {blocker.label}")
            return
        current.waits_for = blocker
        self._pass_on()
        current.waits_for = None

    def give_way(self, blocker: Blocker | None) -> None:
        """Wait for *blocker*, or for a turn, while other tasks have the CPU's loop."""
        if self.off:
            raise greenlet.GreenletExit
        current = self.current
        if current is None or current.cpu is None:
            if blocker is not None and not blocker.ready():
                self.block(blocker)
            return
        cpu = current.cpu
        self.loops[cpu] = None
        current.waits_for = blocker
        self._pass_on()
        current.waits_for = None
        self.loops[cpu] = current

    @staticmethod
    def drive(make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine whose awaits are this platform's: they switch greenlets, so it never yields."""
        try:
            make().send(None)
        except StopIteration as end:
            result: T = end.value
            return result
        raise AssertionError("a coroutine yielded to the virtual platform: await only what it provides")

    def _runnable(self) -> list[Context]:
        out = []
        loops = self.loops
        for context in self.contexts:
            if context.waits_for is not None and not context.waits_for.ready():
                continue
            if context.cpu is not None and loops[context.cpu] is not None and loops[context.cpu] is not context:
                continue
            out.append(context)
        return out or [context for context in self.contexts if isinstance(context.waits_for, _Quiet)][:1]

    def _pass_on(self) -> None:
        """The current context cannot go on: run another, or go back to whoever drives the platform."""
        runnable = self._runnable()
        current = self.current
        if runnable:
            chosen = self.chooser.choose(runnable, None)
            if chosen is current:
                return
            self._switch(chosen)
        else:
            self._switch(None)

    def _leave(self, context: Context) -> None:
        """A context has ended: never come back to it."""
        self.contexts.remove(context)
        self._left.append(context)
        if context.error is not None:
            self.errors.append(context.error)
        self._pass_on()

    def _switch(self, to: Context | None) -> None:
        leaving = self.current
        if leaving is not None:
            self._depths[leaving] = self.locked
        self.current = to
        self.locked = 0 if to is None else self._depths.pop(to, 0)
        (self._hub if to is None else to.greenlet).switch()

    def power_off(self) -> None:
        """End every context where it stands. Called from outside.

        Nobody else can: the stack of a suspended greenlet keeps alive what it refers to, the platform with it, and the
        garbage collector does not look into it. What is unwound gets no lock any more and wakes nobody.
        """
        self.off = True
        for context in (*self.contexts, *self._left):
            context.greenlet.throw(greenlet.GreenletExit)
        self.contexts.clear()
        self._left.clear()
        self._depths.clear()
