"""What the calls of each API return, as views of the two facts that every operation finds out.

Each table is indexed by the facts: nothing, REMOVED, RUNNING, both. Source: callout(9), RETURN VALUES.
"""

from __future__ import annotations

from typing import Final

STOP_RESULT: Final = (-1, 1, 0, 0)  # a running callout's queued next run goes, yet the result is 0
DRAIN_RESULT: Final = (-1, 1, -1, 1)
RESET_RESULT: Final = (0, 1, 0, 1)
WAITED_RESULT: Final = (0, 0, 1, 1)  # of a barrier; and whether a completion will be called
