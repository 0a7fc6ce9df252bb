"""Replays recorded runs of the real kernels against any timer implementation, and says where it differs.

The trace format is described in ``FORMAT.md`` beside this file. To drive an implementation of your own, write a
factory that makes a ``Subsystem`` from a ``Scenario``, and name it: ``callout conformance --impl
my_module:my_factory``.
"""

from ._builtin import builtin
from ._format import Scenario, Step, load, shipped
from ._replay import Event, Mismatch, Subsystem, replay

__all__ = ["Event", "Mismatch", "Scenario", "Step", "Subsystem", "builtin", "load", "replay", "shipped"]
