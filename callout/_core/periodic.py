"""A callout that runs again and again, on a fixed grid of times.

Its argument is a ``Grid``: the arguments of the user's function, and when it runs. At the beginning of each run it is
armed for the next time of the grid that is to come; times that have passed meanwhile are skipped, and counted. So runs
never bunch up, and what ends the repetition is what ends any scheduled run: stop, drain, close.

- A stop during a run must end it, though nothing is scheduled before this module has armed it: a stop that finds a run
  in progress clears ACTIVE, and then nothing is armed (``IF_ACTIVE``).
- A reset that comes between the beginning of a run and its arming here wins (``IF_IDLE``).
- A drain, a close and the end of the system refuse the arming, as any.

Source: our own. The kernel's periodic callouts arm themselves, relative to when they run: they drift.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .args import Args
from .arm import IF_ACTIVE, IF_IDLE, arm
from .guard import protected
from .short import tolerance_of
from .state import REFUSED

if TYPE_CHECKING:
    from .._api.callout import Callout


class Times:
    """The times at which a periodic callout runs: ``anchor`` + n times ``period``, in ns."""

    __slots__ = ("anchor", "missed", "period")

    def __init__(self, anchor: int, period: int) -> None:
        self.anchor = anchor
        self.period = period
        self.missed = 0  # times that were skipped


class Grid(Args):
    """The arguments of a periodic callback, and when it runs."""

    # No slots: what varies in length, as a tuple does, cannot have any.
    callout: Callout
    times: Times

    @protected
    def advance(self) -> None:
        """Arm the callout for the next time that is to come. By its own run, which has just begun."""
        c, times = self.callout, self.times
        anchor, period = times.anchor, times.period
        this = (c.time - anchor) // period
        following = max((c.c_cpu.now() - anchor) // period, this) + 1
        when = anchor + following * period
        precision = tolerance_of(c.c_cpu.machine, c, when)
        if not arm("every", c, when, precision, None, None, None, False, IF_IDLE | IF_ACTIVE) & REFUSED:
            times.missed += following - this - 1


def grid(args: tuple[object, ...], c: Callout, times: Times) -> Grid:
    """Return the argument of *c*, whose function gets *args* at these *times*."""
    made = Grid(args)
    made.callout, made.times = c, times
    return made
