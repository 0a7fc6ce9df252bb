"""Replays recorded runs of the real kernels against any timer implementation, and says where it differs.

The trace format is described in ``FORMAT.md`` beside this file. To have an implementation of your own judged, write a
factory that makes a ``Subsystem`` from a ``Scenario``, most easily a subclass of ``Adapter``, and name it: ``callout
conformance --impl my_module:my_factory``.
"""

from ._adapter import Adapter, KernelLock, RefusedError
from ._builtin import builtin
from ._format import Scenario, Step, load, shipped
from ._replay import Event, Mismatch, Subsystem, replay
from ._workbench import Workbench

__all__ = [
    "Adapter",
    "Event",
    "KernelLock",
    "Mismatch",
    "RefusedError",
    "Scenario",
    "Step",
    "Subsystem",
    "Workbench",
    "builtin",
    "load",
    "replay",
    "shipped",
]
