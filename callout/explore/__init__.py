"""Running a scenario under every schedule."""

from ._explore import explore, replay
from ._incident import Incident, incident
from ._outcome import Certificate, NondeterminismError, NotModelledError, Violation

__all__ = [
    "Certificate",
    "Incident",
    "NondeterminismError",
    "NotModelledError",
    "Violation",
    "explore",
    "incident",
    "replay",
]
