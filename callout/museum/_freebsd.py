"""What the exhibits about FreeBSD have in common."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from ..testing import VirtualSMP
from ._exhibit import Variant

Scenario = Callable[[VirtualSMP], None]

MAIL: Final = "Hans Petter Selasky, mail of 29 December 2014 on the rewrite of kern_timeout.c; review D1438; r277213"
OLD: Final = "kern_timeout.c of FreeBSD 10, _callout_stop_safe(), callout_reset_sbt_on(), softclock_call_cc()"

# A variant that runs the engine of this package. Its threads share plain objects, too.
on_engine: Final = partial(Variant, cells_only=False)
