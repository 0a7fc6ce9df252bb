"""What exploring ends in: a certificate, or an error that says what is wrong with the program or with the scenario."""

from __future__ import annotations

from dataclasses import dataclass, field

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

    def __str__(self) -> str:
        if self.seed is not None:
            return (
                f"nothing was found in {self.schedules} schedules ({self.strategy}, seed {self.seed}), {self.steps} "
                f"switch points, {self.longest} in the longest, in {self.seconds:.1f} s"
            )
        most = "" if self.bound is None else f" with at most {self.bound} preemptions"
        every = f"every schedule{most}" if self.exhausted else f"not every schedule{most}: a limit was reached"
        return (
            f"nothing was found in {self.schedules} schedules ({every}"
            f"{', but for equivalent ones' if self.reduced else ''}), {self.steps} switch points, "
            f"{self.longest} in the longest, in {self.seconds:.1f} s"
        )
