"""The levels of the callwheel, and how much of it is handled at once.

In a module of their own: so they are ints of C where the compiled core imports them.

Source: the levels are those of Linux's timer.c.
"""

from __future__ import annotations

from typing import Final

FAN: Final = 8  # a level has 2**8 slots
LEVELS: Final = (13, 21, 29, 37, 45, 53, 61)  # a slot of a level is 2**that ns: 8 us, 2 ms, half a second, ...
SHIFT: Final = LEVELS[0]
FINE: Final = LEVELS[1]
COARSE: Final = LEVELS[2]
COARSER: Final = LEVELS[3]
LAST: Final = (1 << FAN) - 1  # the last place of a level
CHUNK: Final = 1024  # callouts handled under one hold of the lock
FEW: Final = 4  # of so many callouts in a bucket each is looked at, to see when the first is due
