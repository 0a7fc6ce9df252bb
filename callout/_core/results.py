"""What the calls of each API return, as views of the facts that every operation finds out.

Each table is indexed by the facts: nothing, REMOVED, RUNNING, both; those of arming then once more, with REFUSED.
Source: callout(9), RETURN VALUES.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from .state import REMOVED, RUNNING

STOP_RESULT: Final = (-1, 1, 0, 0)  # a running callout's queued next run goes, yet the result is 0
DRAIN_RESULT: Final = (-1, 1, -1, 1)
RESET_RESULT: Final = (0, 1, 0, 1) * 2
WAITED_RESULT: Final = (0, 0, 1, 1)  # of a barrier; and whether a completion will be called


class StopResult(Enum):
    """What ``c.stop()`` has done. True: this call prevented a run. It never means that the callout may be freed.

    - ``REMOVED``, true: a scheduled run will not happen (C: 1).
    - ``BOTH``, true: a scheduled run will not happen, and an earlier one is in progress, or was
      cancelled, and softclock still stands at its lock (C: 0).
    - ``RUNNING``, false: nothing was scheduled; a run is in progress, or softclock still stands at the lock (C: 0).
    - ``IDLE``, false: there was nothing to stop (C: -1).
    """

    IDLE = 0
    REMOVED = REMOVED
    RUNNING = RUNNING
    BOTH = REMOVED | RUNNING

    def __bool__(self) -> bool:
        return self is _REMOVED or self is _BOTH


class ResetResult(Enum):
    """What ``c.reset()`` has done. True: it will run.

    - ``ARMED``, true: it was armed; nothing was scheduled (C: 0).
    - ``REARMED``, true: it was armed, and replaces a scheduled run, or one that waited for the lock (C: 1).
    - ``REFUSED``, false: nothing was armed, for it is being drained, was closed, or its system is being closed (C: 0,
      or 1 if a run that waited for the lock was cancelled all the same).
    """

    ARMED = 1
    REARMED = 2
    REFUSED = 0

    def __bool__(self) -> bool:
        return self is not _REFUSED


_REMOVED: Final = StopResult.REMOVED
_BOTH: Final = StopResult.BOTH
_REFUSED: Final = ResetResult.REFUSED

STOPPED: Final = tuple(StopResult(facts) for facts in range(4))
ARMED: Final = (ResetResult.ARMED, ResetResult.REARMED) * 2 + (ResetResult.REFUSED,) * 4
