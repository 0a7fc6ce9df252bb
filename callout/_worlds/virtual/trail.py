"""What a run has done, switch point by switch point."""

from __future__ import annotations

from typing import Final

At = tuple[str, int]  # what a context is about to do at a switch point: a verb, and the number of a thing
NOWHERE: Final[At] = ("goes on", 0)


class Trail:
    """What was done at each switch point of a run, for a comparison with another run.

    Things are known by numbers, in the order in which the run has come to know them: names may be alike, or come from a
    counter that goes on from one run to the next.
    """

    __slots__ = ("_things", "points")

    def __init__(self) -> None:
        self._things = [""]
        self.points: list[tuple[str, At]] = []  # the name of the context, "" when none could go on, and what it did

    def number(self, thing: str) -> int:
        """Return a number for something new, which messages call *thing*."""
        self._things.append(thing)
        return len(self._things) - 1

    def thing(self, number: int) -> str:
        """Return what messages call the thing of that number."""
        return self._things[number]

    def tell(self, step: int) -> str:
        """Return what was done at the switch point number *step*."""
        if step >= len(self.points):
            return "the run ended"
        name, (verb, number) = self.points[step]
        return " ".join(filter(None, (name or "the code that drives it", verb, self._things[number])))
