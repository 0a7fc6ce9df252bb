"""What exploring ends in: a certificate, or an error that says what is wrong with the program or with the scenario."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .._core.describe import counted
from .._core.errors import CalloutError
from ._diagram import Diagram
from ._svg import svg


class Violation(CalloutError, AssertionError):  # noqa: N818 - the field's name for it
    """A schedule went wrong; ``__cause__`` says how. ``replay(scenario, violation.schedule)`` runs it again."""

    def __init__(
        self, schedule: str, number: int, lanes: list[str], drawing: Diagram | None = None, preemptions: int = 0
    ) -> None:
        self.diagram = "" if drawing is None else str(drawing)  # what happens in it, one column a thread or CPU
        said = f"schedule {number} went wrong; replay it with {schedule!r}"
        super().__init__(f"{said}\n\n{self.diagram}" if drawing else f"{said}; order: {' '.join(lanes)}")
        self.schedule = schedule  # the shortest that was found
        self.number = number  # which of the schedules that were run went wrong, from 1
        self.preemptions = preemptions  # before it goes wrong
        self.drawing = drawing  # what the diagram was drawn from
        self._args = schedule, number, lanes, drawing, preemptions

    def __reduce__(self) -> tuple[type[Violation], tuple[str, int, list[str], Diagram | None, int]]:
        return type(self), self._args  # it may be found in another process

    def svg(self) -> str:
        """Return the diagram as a picture, a whole SVG file; empty if there is none."""
        return "" if self.drawing is None else svg(self.drawing, str(self).partition("\n")[0])


class NondeterminismError(CalloutError, RuntimeError):
    """The scenario did something else when it was run again with the same choices, so nothing can be said of it.

    At some switch point another thread went on, or it did something else, or the same with another lock or callout.

    Mostly it keeps something from one run to the next: a global, a cache, a class attribute. Random numbers, real time,
    real threads and the order of a set of objects do the same.
    """


class NotModelledError(CalloutError, RuntimeError):
    """The scenario uses what virtual CPUs do not have: real time, chance, a real lock, thread, loop or process.

    The error says what it was, where it stands, and what to use there.
    """


@dataclass(frozen=True)
class Certificate:
    """What was explored, with nothing found."""

    schedules: int  # that were run to their end
    longest: int  # switch points of the longest
    bound: int | None  # preemptions
    exhausted: bool  # whether this was every schedule within the bound, but for equivalent ones
    strategy: str = "dfs"
    reduced: bool = True  # of equivalent schedules only some were run
    steps: int = 0  # switch points of all
    seconds: float = field(default=0.0, compare=False)
    final_states: frozenset[str] = field(default=frozenset(), repr=False)  # how the runs have ended
    seed: int | None = None  # of what was left to chance
    # In how many of the schedules each callback and completion has run. What is not here was not exercised.
    ran: Mapping[str, int] = field(default_factory=dict, repr=False, hash=False)
    in_order: tuple[int, int] | None = (
        None  # the events of a trace that came in their turn in the first run, of how many
    )

    @property
    def not_covered(self) -> tuple[str, ...]:
        """What this says nothing of. docs/not-modelled.md has the whole list."""
        out = []
        if self.strategy not in ("dfs", "recorded") or not self.exhausted:
            out.append("the schedules that were not run")
        if self.strategy == "recorded":
            out.append("orders that are not like the recorded one")
        if self.bound is not None and self.strategy != "recorded":
            out.append(f"more than {counted(self.bound, 'preemption')}")
        return (*out, "switches elsewhere than at switch points", "weak memory")

    def __str__(self) -> str:
        ran = ", ".join(f"{name} in {count:,}" for name, count in sorted(self.ran.items()))
        return f"{self._found()}{f'; ran: {ran}' if ran else ''}; not covered: {', '.join(self.not_covered)}"

    def _found(self) -> str:
        return (
            f"nothing was found in {counted(self.schedules, 'schedule')} ({self._which()}), "
            f"{counted(self.steps, 'switch point')}, {self.longest:,} in the longest, in {self.seconds:.1f} s"
        )

    def _which(self) -> str:
        """Say which schedules these were."""
        if self.seed is not None:
            return f"{self.strategy}, seed {self.seed}"
        if self.strategy == "recorded":
            came = "" if self.in_order is None else f", in which {turns(self.in_order)}"
            most = (
                f"{came and ','} and what departs from it at most {counted(self.bound, 'time')}" if self.bound else ""
            )
            return f"the recorded order{came}{most}{'' if self.exhausted else ': a limit was reached'}"
        most = "" if self.bound is None else f" with at most {counted(self.bound, 'preemption')}"
        every = f"every schedule{most}" if self.exhausted else f"not every schedule{most}: a limit was reached"
        return f"{every}{', but for equivalent ones' if self.reduced else ''}"


def turns(in_order: tuple[int, int]) -> str:
    """Say how many events of a trace came in their turn, and of how many."""
    came, expected = in_order
    return f"{'all' if came == expected else f'{came} of'} {counted(expected, 'event')} of the trace came in their turn"
