"""What happened in one run: told by a chooser that follows a schedule, step by step.

A context says at a switch point what it will do when it goes on, so a step is told when its context is chosen. That it
has released a lock or woken another it says afterwards. Between two choices there is one context only, and what has
changed is its doing: what a cell was read or written, and what became of the callouts in the queues and runs of the
CPUs. That is how softclock is told, rather than by the locks it takes.

A context stands at a place in the user's code, the innermost on its stack: what it does there is told under that line.
What it calls there of the package, and what that returns, a profile function sees (``sys.setprofile``), and what the
engine calls of the user's. It does not see what is compiled. Lines of the user's in which nothing of the package is
used are not told, nor is what a block of ``vm.setup()`` does.

All of it costs time, and so it is for the one run that is reported. No frame and no object of the scenario is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import FrameType, MethodType, TracebackType
from typing import Final, NamedTuple

from .._api.callout import Callout
from .._core import frames
from .._core.describe import name_of
from .._core.errors import DeadlockError
from .._core.state import FIELDS
from .._worlds.virtual import records
from .._worlds.virtual.context import INTERRUPT, SOFTCLOCK, Context
from .._worlds.virtual.locks import CpuLock
from .._worlds.virtual.models import told
from .._worlds.virtual.trail import NOWHERE, At
from .._worlds.virtual.vm import VirtualSMP
from .._worlds.virtual.waiters import Interrupt
from ..testing._allocation import GraveCpu
from ._profile import profiled
from ._run import Run, Scenario, Script, run
from ._schedule import Setting

SHIM: Final = "callout_linux"
VIRTUAL: Final = "callout._worlds."  # whose calls are not told: their steps are

OURS: Final = (SHIM, "callout.explore.", "contextlib")  # besides the package itself: no user's code

QUIET: Final = "waits for all others to be quiescent"  # in vm.settle()

# Verbs of the platform: what is said when it is over, what goes without saying, and how the end of a wait is told.
DONE: Final = frozenset({"has released", "ends", "interrupts"})
SILENT: Final = frozenset(
    {
        "goes on",
        "yields",
        "waits for an interrupt",
        "is about to wait",
        "reads the cpu of",
        "reads the state of",
        "uses",
        "begins",
        "waits until",
    }
)
IN_WORDS: Final = {"has released": "releases", "is about to wait": "waits", "begins": "waits", "waits until": "waits"}
AFTER_A_WAIT: Final = {
    "waits for": "acquires",
    "waits until": "stops waiting",
    "begins": "is woken",
    "waits to interrupt": "interrupts",
}

CALLS: Final = VirtualSMP._call.__code__  # what runs callbacks and completions
_func_of = FIELDS["func"].__get__  # also that of a freed one


class Place(NamedTuple):
    """Where in the user's code something happens."""

    file: str
    line: int
    function: str


class Event(NamedTuple):
    """Something that a context does. Without a text: it stands at a place."""

    lane: str
    place: Place | None
    text: str
    value: str = ""  # that was read or written
    wrong: bool = False
    fold: bool = False  # it stands for others


@dataclass(frozen=True)
class Story:
    """All that happened in a run, until it went wrong."""

    events: tuple[Event, ...]
    headings: dict[str, str]  # of the contexts, in the order in which they appear


def place_of(frame: FrameType | None) -> Place | None:
    """Return where the user's code stands on a stack whose innermost frame is that."""
    while frame is not None and _is_ours(frame):
        frame = frame.f_back
    return None if frame is None else Place(frame.f_code.co_filename, frame.f_lineno, _function(frame))


def _brief(text: str) -> str:
    return text.replace("the lock '", "lock '")


def _function(frame: FrameType) -> str:
    return _local(frame.f_code.co_qualname)


def _local(name: str) -> str:
    return name.rpartition("<locals>.")[2]


def _is_ours(frame: FrameType) -> bool:
    return frames.is_own(frame) or _module(frame).startswith(OURS)


def _is_told(frame: FrameType) -> bool:
    """Whether calls of that function are told."""
    module = _module(frame)
    return module.startswith(SHIM) or (frames.is_own(frame) and not module.startswith(VIRTUAL))


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


class Teller(Script):
    """A chooser that follows a schedule and notes what happens."""

    def __init__(self, choices: Sequence[int]) -> None:
        super().__init__(choices)
        self.events: list[Event] = []
        self.headings: dict[str, str] = {}
        self._cpu_locks: set[int] = set()
        self._points = 0  # of the trail, that were looked at
        self._next: dict[str, At] = {}  # what each context does when it goes on
        self._last: Context | None = None  # who was chosen last
        self._step = -1  # the event that tells its step
        self._stands: dict[tuple[int, str], str] = {}  # where each callout stands
        self._names: dict[int, str] = {}  # of the callouts, by number
        self._told: dict[int, bool] = {}  # by the id of code that stays: whether its calls may be told
        self._cuts: dict[int, tuple[int, str]] = {}  # by the id of an error: how many events came before, and in whom

    # -- steps ----------------------------------------------------------------------------------------------------

    def choose(self, runnable: Sequence[Context], current: Context | None) -> Context:
        """Follow the schedule, and tell the step that was made and the one that will be."""
        with profiled(None):  # nothing in here is told, and it would double the time
            return self._choose(runnable, current)

    def _choose(self, runnable: Sequence[Context], current: Context | None) -> Context:
        self.catch_up()
        chosen = super().choose(runnable, current)
        if current is not None and chosen is not current:
            self._tell_preemption(current)
        at = self._next.pop(chosen.name, NOWHERE)
        self._last = chosen
        self._step = -1
        if not self._is_silent(at):
            self._step = len(self.events)
            self._tell(chosen, self._phrase(at))
        elif chosen.in_user or chosen.kind not in (SOFTCLOCK, INTERRUPT):
            self._tell(chosen, "")
        return chosen

    def catch_up(self) -> None:
        """Tell what has happened since a context was chosen last."""
        platform = self.platform
        last = self._last
        if platform.notes is None:
            platform.notes = []
        if last is not None:
            if platform.notes and self._step >= 0:
                self._add_value(" ".join(platform.notes))
            self._tell_callouts(last)
        platform.notes.clear()
        points = self.trail.points
        for name, at in points[self._points :]:
            if last is not None and name == last.name:
                self._tell_arrival(last, at)
        self._points = len(points)

    def _add_value(self, value: str) -> None:
        event = self.events[self._step]
        if value.startswith("held by "):  # it has tried, and in vain
            event = event._replace(text=event.text.replace("acquires", "finds", 1))
            if event.place is None and event._replace(value=value) in self.events[self._step - 1 : self._step]:
                del self.events[self._step]  # softclock tries twice
                self._step = -1
                return
        self.events[self._step] = event._replace(value=value)

    def look(self) -> None:
        """Note how far the story was when something has gone wrong."""
        before = len(self._moments)
        super().look()
        for key in list(self._moments)[before:]:
            self._cuts[key] = len(self.events), "" if self._last is None else self._last.name

    def _tell_arrival(self, me: Context, at: At) -> None:
        """Tell what a context has done that comes to a switch point, or that it has to wait there."""
        verb = at[0]
        if verb in DONE:
            self._next[me.name] = NOWHERE
            if verb == "ends":
                for other in self.platform.contexts:
                    if getattr(other.waits_for, "_number", None) == at[1]:
                        self._tell(me, f"wakes {other.name}")
            elif not self._is_silent(at):
                self._tell(me, self._phrase(at))
            return
        blocker = me.waits_for
        if blocker is None:
            self._next[me.name] = at
            return
        self._next[me.name] = (AFTER_A_WAIT.get(verb, "goes on"), at[1])
        if isinstance(blocker, Interrupt) or verb == "waits to interrupt":
            return
        if me.kind == SOFTCLOCK and records.idles(self.vm.machine.cpus[me.cpu or 0], blocker):
            self._next[me.name] = NOWHERE
            return
        text = _brief(f"waits for {blocker.label}")
        if self._step >= 0 and self.events[self._step].text == self._phrase(("acquires", at[1])):
            self.events[self._step] = self.events[self._step]._replace(text=text)  # it has tried, and in vain
        else:
            self._tell(me, text)

    def _tell_preemption(self, me: Context) -> None:
        at = self._next.get(me.name, NOWHERE)
        self._tell(me, f"(preempted{'' if at == NOWHERE else f' before it {self._phrase(at)}'})")

    def _tell(self, me: Context, text: str, value: str = "", place: Place | None = None) -> None:
        event = Event(me.name, place or place_of(me.frame()), text, value)
        if text or (event.place is not None and (not self.events or self.events[-1][:2] != event[:2])):
            self.events.append(event)
            self.headings.setdefault(me.name, f"{me.name} (softclock)" if me.kind == SOFTCLOCK else me.name)

    def _is_silent(self, at: At) -> bool:
        return at[0] in SILENT or at[1] in self._quiet_things()

    def _quiet_things(self) -> set[int]:
        """Return the numbers of the locks of CPUs. When the system is closed, each is replaced by what refuses."""
        self._cpu_locks |= {cpu.lock.number for cpu in self.vm.machine.cpus if isinstance(cpu.lock, CpuLock)}
        return self._cpu_locks

    def _phrase(self, at: At) -> str:
        """Say what is done at a switch point."""
        verb, number = at
        said = IN_WORDS.get(verb, verb)
        if said in ("waits", "is woken", "stops waiting"):
            return said
        thing = self.trail.thing(number)
        if verb == "interrupts":
            thing = thing.removeprefix("the interrupts of ")
        return _brief(f"{said} {thing}".rstrip())

    # -- callouts -------------------------------------------------------------------------------------------------

    def _tell_callouts(self, me: Context) -> None:
        """Tell what has become of the callouts in the queues, and of the runs."""
        stands: dict[tuple[int, str], str] = {}
        for c, what, where in records.standing(self.vm.machine):
            number = self.platform.number_of(c)
            stands[number, what] = where
            if number not in self._names:
                self._names[number] = self._name(c)
        before, self._stands = self._stands, stands
        for number, what in sorted(before.keys() | stands.keys()):
            was, now = before.get((number, what), ""), stands.get((number, what), "")
            text = "" if was == now else self._change(number, what, was, now)
            if text:
                self._tell(me, text)

    def _change(self, number: int, what: str, was: str, now: str) -> str:
        name = self._names[number]
        if what == "queue":
            if now:
                return f"queues {name} for {now.partition(' of ')[0]}"
            return "" if (number, "run") in self._stands else f"removes {name} from the queue"
        if not was:
            return f"takes {name} from the queue"
        if not now:
            return f"is done with {name}"
        return f"cancels the run of {name}" if now.startswith("cancelled") else ""

    def _name(self, c: Callout) -> str:
        func = _func_of(c)
        is_grave = type(func) is MethodType and type(func.__self__) is GraveCpu
        name = "a freed callout" if is_grave else _local(name_of(func))
        same = sum(each.partition(" #")[0] == name for each in self._names.values())
        return f"{name} #{same + 1}" if same else name

    # -- calls ----------------------------------------------------------------------------------------------------

    def profile(self, frame: FrameType, event: str, value: object) -> None:
        """Tell what the user's code calls of the package, what it gets, and what the engine calls of the user's."""
        code = frame.f_code
        is_told = self._told.get(id(code))
        if is_told is None:
            is_told = self._told[id(code)] = code is CALLS or (_is_told(frame) and not code.co_name.startswith("_"))
        if not is_told or event not in ("call", "return") or self._last is None:
            return
        platform = self.platform
        me = platform.current
        if me is None or platform.off or platform.still:
            return
        if code is CALLS:
            if event == "call":
                self._tell_callouts(me)
                self._tell(me, f"calls {_local(name_of(frame.f_locals['func']))}")
            return
        caller = frame.f_back
        if caller is None or _is_ours(caller):
            return
        if event == "call":
            self._tell(me, "", place=place_of(caller))
        elif issubclass(type(value), int | str):  # not isinstance(): it asks the value, which may have been freed
            self._tell_callouts(me)
            self._tell(me, f"{code.co_name}()", f"-> {told(value)}", place_of(caller))

    # -- the end --------------------------------------------------------------------------------------------------

    def settled(self) -> None:
        """Tell what the last one has done."""
        self.catch_up()
        self.look()

    def story(self, problem: BaseException | None) -> Story:
        """Return what was told, up to what went wrong."""
        events = self.events
        if problem is not None:
            platform = getattr(self, "platform", None)  # if the run has come so far
            if platform is not None and problem is platform.failure and platform.notes and self._step >= 0:
                self._add_value(" ".join(platform.notes))  # what the step has done that broke an invariant
            cut, lane = self._cuts.get(id(problem), (len(events), ""))
            events = events[:cut]
            if platform is not None and problem is platform.failure and self._last is not None:
                lane = self._last.name
            said = str(problem).partition("\n")[0]
            if isinstance(problem, DeadlockError) and platform is not None:
                events = events + [
                    Event(name, None, _brief(f"waits for ever for {what}"), wrong=True)
                    for name, what in platform.stuck.items()
                ]
                said = said.partition(":")[0]
            place = _raised_at(problem.__traceback__)
            events = _without_unwinding(events, lane, place)
            kind = type(problem).__name__
            events.append(Event(lane, place, f"{kind}: {said}" if said else kind, wrong=True))
        return Story(tuple(events), self.headings)


def _without_unwinding(events: list[Event], lane: str, place: Place | None) -> list[Event]:
    """Leave out what a context has done on its way out, from the place where the error was raised."""
    at = len(events)
    while at and events[at - 1].lane == lane:
        if events[at - 1].place == place:
            return events[:at]
        at -= 1
    return events


def _raised_at(traceback: TracebackType | None) -> Place | None:
    """Return the innermost place in the user's code that an error has left."""
    place = None
    while traceback is not None:
        frame = traceback.tb_frame
        if not _is_ours(frame):
            place = Place(frame.f_code.co_filename, traceback.tb_lineno, _function(frame))
        traceback = traceback.tb_next
    return place


def tell(scenario: Scenario, setting: Setting, choices: Sequence[int], steps: int) -> tuple[Story, Run]:
    """Run the scenario under a schedule, and return what happens in it."""
    teller = Teller(choices)
    with profiled(teller.profile):
        ended = run(scenario, setting, teller, steps)
    return teller.story(ended.problem), ended
