"""Running a scenario under every schedule."""

from ._explore import explore, replay
from ._outcome import Certificate, NondeterminismError, Violation

__all__ = ["Certificate", "NondeterminismError", "Violation", "explore", "replay"]
