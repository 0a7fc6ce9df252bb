"""Running a scenario under every schedule."""

from ._bounded import Certificate, NondeterminismError, Violation, explore, replay

__all__ = ["Certificate", "NondeterminismError", "Violation", "explore", "replay"]
