"""What to import in tests of code that uses callouts.

``Slab`` finds what is used after it was freed, freed twice or never, on real loops and on virtual CPUs alike;
``ManualTimers`` is a callout system without a loop, whose clock your test moves; ``VirtualSMP`` is one on virtual CPUs,
and needs the extra ``callout[explore]``, as does ``explore_teardown()``, which explores a ``Teardown`` and its mutants.
"""

from __future__ import annotations

import typing

from .._worlds.manual.timers import ManualTimers
from ._allocation import Allocation, Where
from ._cut_short import CutShortWarning
from ._slab import Slab
from ._teardown import Teardown, TeardownReport, explore_teardown, teardown_scenario

if typing.TYPE_CHECKING:
    from .._worlds.virtual.vm import VirtualSMP

__all__ = [
    "Allocation",
    "CutShortWarning",
    "ManualTimers",
    "Slab",
    "Teardown",
    "TeardownReport",
    "VirtualSMP",
    "Where",
    "explore_teardown",
    "teardown_scenario",
]

if not typing.TYPE_CHECKING:  # a type checker would take every name for one that is there

    def __getattr__(name: str) -> object:
        """Import what needs an extra when it is asked for; raises ``MissingExtraError`` if that is not installed."""
        if name == "VirtualSMP":
            from .._worlds.virtual.vm import VirtualSMP

            return VirtualSMP
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
