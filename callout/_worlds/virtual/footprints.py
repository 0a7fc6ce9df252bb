"""How a step uses things: what the reduction compares."""

from __future__ import annotations

from typing import Final

# How a step uses a thing. Two steps that use the same thing are in conflict unless both read it, or both release it:
# only then can their order matter. RELEASES makes it possible for others to go on, and so comes before what they do
# then, and never after: a lock that is released, a wake-up, a loop that is given to its other tasks.
READS: Final = 1
WRITES: Final = 2
RELEASES: Final = 4
TRIES: Final = 8  # besides: that it was free was not to be expected, and a release just before may have come after it
Footprint = dict[int, int]  # how a step has used things, by their numbers, in the order in which it came to them

# The numbers of things that are always there.
WORLD: Final = -1  # all that the user's code may share without saying so
TIME: Final = -2
QUIET: Final = -3  # it comes after everything: no other could go on
