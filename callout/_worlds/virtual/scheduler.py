"""Contexts, and which of them runs: greenlets that switch where the platform says so.

A context runs on until a *switch point*. There a *chooser* picks the one that runs next; nothing else is left to
chance, so the chooser's choices are the schedule.

No context can stop a run from being ended: what ends it (too many steps, Ctrl-C, a chooser that cannot go on) is not
raised in the context that stands at the point, where an ``except`` may swallow it. The scheduler keeps it, goes back
to the greenlet that drives it, the *hub*, and raises it there.

All of it belongs to the thread and the greenlet that opened it. The calls of any other are refused: they would resume
a context in the middle of another one's work.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, NoReturn, Protocol

from ..._core import frames
from ..._core.errors import ClosedError, DeadlockError, LivelockError, NoSystemError
from .context import INTERRUPT, TASK, THREAD, Blocker, Context, one_lane
from .fairness import Fairness
from .footprints import QUIET, READS, RELEASES, TRIES, WORLD, WRITES, Footprint
from .stacks import Stacks, greenlet
from .trail import NOWHERE, At, Trail

MOST: Final = 2000  # contexts that one run of an exploration may start
PATIENCE: Final = 8  # how often a context that is being ended may catch that and go on

LEFT: Final = (
    "this virtual callout system was left: its `with VirtualSMP()` block, or its schedule of explore(), has ended; "
    "a lock, callout or event that outlives it, in a global for example, cannot be used in the next one: make it there"
)

# What could not be ended. Thrown away, each would be told to end once more, and would go on again.
_UNENDING: Final[list[Context]] = []


class Invariant(Protocol):
    """What must hold after every step."""

    def look(self) -> None:
        """Raise if it does not, in no step."""


class Chooser(Protocol):
    """Picks the context that runs next.

    One that will let the current context go on wherever that can may say so in an attribute ``stays``: it is not asked
    there, and nobody looks who else could run. One with a true attribute ``tracks`` is asked at every switch point,
    also where only one context can run, and finds in ``Scheduler.foot`` what the step before has used. One with a true
    attribute ``repeats`` does what an earlier run has done: what was looked at then is not looked at again.
    """

    def choose(self, runnable: Sequence[Context], current: Context | None) -> Context:
        """Return one of *runnable*, which is sorted by age and not empty.

        *current* is the one that stands at a switch point, if it could go on.
        """
        ...


class RunOn:
    """The default chooser: the current context goes on; then the oldest."""

    stays: Final = True

    def choose(self, runnable: Sequence[Context], current: Context | None) -> Context:
        """Return *current* if it can go on."""
        return current if current is not None else runnable[0]


class _Quiet:
    """What a context waits for that wants all others to be unable to go on."""

    label = "all others to be quiescent"

    @staticmethod
    def ready() -> bool:
        """Never by itself: see ``_runnable``."""
        return False


class Scheduler:
    """Contexts under one chooser."""

    def __init__(self, chooser: Chooser | None, max_steps: int) -> None:
        self.obey(chooser or RunOn())
        self.max_steps = max_steps
        self.steps = 0
        self.still = 0  # how many blocks ask that nobody else runs meanwhile
        self.trail = Trail()
        self._note = self.trail.points.append
        self.contexts: list[Context] = []
        self.current: Context | None = None
        self.loops: list[Context | None] = []  # which context has the loop of each CPU
        self.loop_numbers: list[int] = []  # in footprints, and that of which of its tasks could run
        self.turns: list[int] = []
        self.errors: list[BaseException] = []  # what left a context
        self._spawned = 0
        self.failure: BaseException | None = None  # what ended the run
        self.stuck: dict[str, str] = {}  # when nothing can run any more: what each waits for, which will never come
        self.invariants: list[Invariant] = []  # what must hold after every step
        self.notes: list[str] | None = None  # for a report: what the current step has read or written
        self.stacks = Stacks()
        self.outside = Context(THREAD, "outside", None, 0, "outside")
        self.adopt_driver()
        self.off = False  # the contexts are being ended, or were
        self._ending: Context | None = None
        self._pleas = 0
        self._quiet = 0  # how many contexts wait until all others are quiescent
        self.fairness = Fairness()
        self._ran: Context | None = None  # since it was asked last who can run
        self._could_run: Sequence[Context] = ()  # then
        self._behind: dict[Context, set[Context]] = {}  # a task that has given way: those whose turn comes first
        self._names: dict[str, int] = {self.outside.name: 1}

    def obey(self, chooser: Chooser) -> None:
        """Have *chooser* pick the contexts from now on."""
        self.chooser = chooser
        self.foot: Footprint | None = {} if getattr(chooser, "tracks", False) else None
        self.world: bool = getattr(chooser, "world", True)  # threads may share what is not seen here

    def touch(self, number: int, how: int) -> None:
        """Note that the current step uses a thing."""
        foot = self.foot
        if foot is not None:
            foot[number] = foot.get(number, 0) | how

    def adopt_driver(self) -> None:
        """Make the caller the code that drives the platform."""
        self.hub = self.outside.greenlet = greenlet.getcurrent()

    def power_off(self) -> list[str]:
        """End every context where it stands, and return the names of those that went on all the same. From outside.

        Nothing else can: the stack of a suspended greenlet keeps alive what it refers to, the platform with it, and the
        garbage collector does not look into it. What is unwound gets no lock any more and wakes nobody.
        """
        self.off = True
        unending = []
        for context in self.contexts:
            context.entry = None  # a frame, and with it all that is on its stack
            its = context.greenlet
            if its is None:
                continue
            self.current = self._ending = context
            self._pleas = 0
            its.throw(greenlet.GreenletExit)
            if context.greenlet is not None:
                unending.append(context)
        self.current = self._ending = None
        self.contexts.clear()
        self.stacks.rest()
        _UNENDING.extend(unending)
        return [context.name for context in unending]

    def refuse(self, call: str = "") -> NoReturn:
        """Raise for a use of what was left, by *call*; a context that is being ended goes on ending."""
        if self._ending is not None:
            self._pleas += 1
            while self._pleas > PATIENCE:  # it catches whatever is raised in it: leave it standing where it is
                self.hub.switch()
            raise greenlet.GreenletExit
        for context in _UNENDING:
            while context.greenlet is greenlet.getcurrent():  # the interpreter exits, and throws it away
                self.hub.switch()
        raise ClosedError(f"{call}: {LEFT}" if call else LEFT, call=call)

    def me(self) -> Context:
        """Return the current context, or the outside; raise if the caller is neither."""
        if self.off:
            self.refuse()
        me = self.current or self.outside
        if greenlet.getcurrent() is not me.greenlet:
            error = NoSystemError(
                "this virtual callout system is not the one that this code runs in, and so its locks, callouts and "
                "events cannot be used here: it belongs to the thread that opened it, and to what vm.spawn() starts"
            )
            if self.current is not None:
                self.fail(error)  # a thread that a scenario has started: nobody else would hear of it
            raise error
        return me

    # -- contexts -------------------------------------------------------------------------------------------------

    def spawn(
        self,
        name: str,
        func: Callable[..., object],
        *args: object,
        cpu: int | None = None,
        bound: int = 0,
        kind: str = "",
    ) -> Context:
        r"""Start *func(\*args)* as a thread, or as a task of *cpu*. It runs when it is chosen.

        Names are made unique: a thread is known by its name, and two threads of one name would own each other's locks.
        """
        self._spawned += 1
        if self.foot is not None and self._spawned > MOST:
            self.fail(LivelockError(f"{MOST} threads were started; does something start threads for ever?"))
        number = self._names[name] = self._names.get(name, 0) + 1
        if number > 1:
            name = f"{name}#{number}"
        context = Context(
            kind or (THREAD if cpu is None else TASK),
            name,
            cpu,
            bound,
            name if cpu is None else ("cpu", cpu),
            self.trail.number(f"the start of {name}"),
            self.trail.number(f"the turns of {name}"),
        )
        self.touch(context.number, RELEASES)
        context.body = partial(func, *args)
        context.variables = contextvars.copy_context()
        self.contexts.append(context)
        return context

    def _live(self, context: Context, body: Callable[[], object]) -> None:
        """Be *context*, on its own stack, from its begin to its end."""
        context.waits_for = None
        self.touch(context.number, WRITES)
        cpu = context.cpu
        if cpu is not None:
            self._take_loop(context, cpu)
        try:
            body()
        except greenlet.GreenletExit as error:
            if not self.off:
                context.error = error  # the user's code has raised it
        except KeyboardInterrupt as error:
            self.failure = error
        except BaseException as error:
            context.error = error
        assert context.greenlet is not None
        self.stacks.keep(context.greenlet)
        context.greenlet = None
        if self.off:
            return
        self.touch(context.turns, RELEASES)
        if cpu is not None and self.loops[cpu] is context:
            self._leave_loop(cpu)
        if context.kind in (THREAD, TASK) and not context.pure:
            self.touch(WORLD, WRITES)
        context.entry = None
        self.contexts.remove(context)
        if context.error is not None:
            self.errors.append(context.error)
        self.current = None  # the hub goes on: it is the parent of every greenlet

    def settle(self) -> None:
        """Run everything until nothing can run any more, and raise what ended the run if something did. From
        outside.
        """
        self.me()
        assert self.current is None, "settle() is for the code that drives the platform"
        while self.failure is None and (runnable := self._runnable()):
            self._drive(runnable)
        if self.invariants and self.failure is None:
            self._look_at_invariants()
        if self.failure is not None:
            self._end()

    def wait_until_quiet(self) -> None:
        """Wait, as a context, until no other can run any more."""
        self._quiet += 1
        try:
            self.block(_Quiet())
        finally:
            self._quiet -= 1
        self.touch(QUIET, WRITES)

    def point(self, at: At = NOWHERE) -> None:
        """A switch point: another context may run here. *at* says what the current one does when it goes on."""
        current = self.current
        if current is None or self.off:
            return
        if greenlet.getcurrent() is not current.greenlet:
            self.me()  # raises
        if self.still:
            return
        self._step(at)
        tracks = self.foot is not None
        if tracks or self.fairness.since or not getattr(self.chooser, "stays", False):
            runnable = self._runnable()
            if not tracks and len(runnable) == 1 and runnable[0] is current:
                self._ran = current
            else:
                chosen = self._choose(runnable, current if current in runnable else None)
                if chosen is not current:
                    self._switch(chosen)
        if self.failure is not None:
            self._end()

    def block(self, blocker: Blocker, at: At = NOWHERE) -> None:
        """Wait for *blocker*, keeping the CPU's loop."""
        me = self.me()
        if self.current is None:
            while self.failure is None and not blocker.ready():
                runnable = self._runnable()
                if not runnable:
                    raise DeadlockError(f"the code that drives the platform would wait for ever for {blocker.label}")
                self._drive(runnable)
            if self.failure is not None:
                self._end()
            return
        self._refuse_still(blocker)
        me.waits_for = blocker
        self._pass_on(at)
        me.waits_for = None

    def _refuse_still(self, blocker: Blocker | None) -> None:
        if self.still:
            raise DeadlockError(
                f"a block of vm.setup(), in which no other thread runs, would wait for "
                f"{'a turn of the others' if blocker is None else blocker.label}"
            )

    def yields(self, at: At = NOWHERE) -> None:
        """A switch point of a context that gets nowhere by itself: the others have a turn before it goes on."""
        me = self.me()
        self.wait_for_turns(me)
        self.give_way(None, at)
        self._touch_turns(me, READS)

    def wait_for_turns(self, me: Context) -> None:
        """Have *me* go on only when others have had their turns. When it may depends on all of their steps."""
        if self.current is not None:
            self.fairness.yields(me, self._runnable())
            self._touch_turns(me, READS | TRIES)

    def _touch_turns(self, me: Context, how: int) -> None:
        if self.foot is not None:
            for other in self.contexts:
                if not one_lane(me, other):
                    self.touch(other.turns, how)

    def give_way(self, blocker: Blocker | None, at: At = NOWHERE) -> None:
        """Wait for *blocker*, or for a turn, while other tasks have the CPU's loop."""
        me = self.me()
        if me.cpu is None:
            if blocker is None or blocker.ready():
                self.point(at)
            else:
                self.block(blocker, at)
            return
        self._refuse_still(blocker)
        self._leave_loop(me.cpu)
        me.waits_for = blocker
        if blocker is None:
            self._line_up(me)
            self.touch(self.turns[me.cpu], READS)
        self._pass_on(at)
        me.waits_for = None
        self._take_loop(me, me.cpu)

    def _take_loop(self, me: Context, cpu: int) -> None:
        self.loops[cpu] = me
        self.touch(self.loop_numbers[cpu], WRITES)

    def _leave_loop(self, cpu: int) -> None:
        self.loops[cpu] = None
        self.touch(self.loop_numbers[cpu], RELEASES)

    def wrong(self, error: BaseException) -> NoReturn:
        """Raise in the current context what is an error of the run also if it is caught there."""
        self.errors.append(error)
        raise error

    def fail(self, error: BaseException) -> None:
        """End the run with *error*: it is raised where the platform is driven, as soon as that is reached."""
        if self.failure is None:
            self.failure = error

    # -- choosing and switching -----------------------------------------------------------------------------------

    def _step(self, at: At) -> None:
        self.steps += 1
        current = self.current
        self._note(("" if current is None else current.name, at))
        if self.foot is not None and current is not None:
            self.touch(current.turns, RELEASES)
            if not current.pure:
                # Between two switch points in one and the same call of the package nothing of the user's has run.
                entry = frames.entry_frame(2)
                if entry is not current.entry:
                    self.touch(WORLD, WRITES)
                    current.entry = entry
        if self.invariants:
            self._look_at_invariants()
        if self.steps > self.max_steps:
            self.fail(
                LivelockError(
                    f"no end after {self.max_steps} steps; is something re-arming itself, or retrying, for ever?"
                    f"{'' if self.current is None else f' {self.current.name} was running'}"
                )
            )
            self._end()

    def _look_at_invariants(self) -> None:
        for invariant in self.invariants:
            try:
                invariant.look()
            except BaseException as error:
                self.fail(error)
                self._end()

    def _end(self) -> NoReturn:
        """Go back to the hub for good."""
        if self.current is not None:
            self._switch(None)
            raise greenlet.GreenletExit  # it was resumed to be ended
        assert self.failure is not None
        raise self.failure

    def _choose(self, runnable: Sequence[Context], current: Context | None) -> Context:
        try:
            chosen = self._ran = self.chooser.choose(runnable, current)
        except BaseException as error:
            self.fail(error)
            self._end()
        if self.failure is not None:
            self._end()
        return chosen

    def _runnable(self) -> list[Context]:
        out = []
        loops = self.loops
        for context in self.contexts:
            blocker = context.waits_for
            if blocker is None or blocker.ready():
                cpu = context.cpu
                if cpu is None or loops[cpu] is None or loops[cpu] is context:
                    out.append(context)
        if self._behind:
            out = [context for context in out if not any(other in out for other in self._behind.get(context, ()))]
        if self.fairness.since:
            if self._ran is not None:
                self.fairness.took_turn(self._ran, self._could_run, out)
                self._ran = None
            self._could_run = out
            out = self.fairness.admit(out)
        if out or not self._quiet:
            return out
        return [context for context in self.contexts if isinstance(context.waits_for, _Quiet)][:1]

    def _pass_on(self, at: At) -> None:
        """The current context cannot go on: run another, or go back to the hub."""
        self._step(at)
        runnable = self._runnable()
        if runnable and self.failure is None:
            chosen = self._choose(runnable, None)
            if self._behind:
                self._take_turn(chosen)
            if chosen is not self.current:
                self._switch(chosen)
        else:
            self._switch(None)
        if self.failure is not None:
            self._end()

    def _line_up(self, me: Context) -> None:
        """Put *me* behind the tasks of its loop that can run: each has a turn first, as at a checkpoint of trio."""
        self._behind[me] = {o for o in self._runnable() if o.cpu == me.cpu and o.kind != INTERRUPT and o is not me}

    def _take_turn(self, chosen: Context) -> None:
        self._behind.pop(chosen, None)
        for others in self._behind.values():
            others.discard(chosen)

    def _drive(self, runnable: Sequence[Context]) -> None:
        """In the hub: let one of *runnable* run, and what it switches to, until one has ended or none can go on."""
        self._step(NOWHERE)
        chosen = self._choose(runnable, None)
        if self._behind:
            self._take_turn(chosen)
        self.current = chosen
        try:
            while (context := self.current) is not None:
                its = context.greenlet
                if its is not None:
                    its.switch()
                else:
                    assert context.body is not None
                    its = context.greenlet = self.stacks.take(self.hub)
                    its.gr_context = context.variables
                    live = partial(self._live, context, context.body)
                    context.body = context.variables = None
                    its.switch(live)
        finally:
            self.current = None

    def _switch(self, to: Context | None) -> None:
        """Go on with *to*. What was not started yet is started from the hub: else each would begin as deep in the
        interpreter's stack as the one before it is.
        """
        self.current = to
        (self.hub if to is None or to.greenlet is None else to.greenlet).switch()
