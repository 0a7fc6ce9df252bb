"""Running a scenario under every schedule."""

from ._explore import explore, replay
from ._outcome import Certificate, NondeterminismError, NotModelledError, Violation

__all__ = ["Certificate", "NondeterminismError", "NotModelledError", "Violation", "explore", "replay"]
