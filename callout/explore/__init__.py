"""Running a scenario under every schedule."""

from ._bounded import Certificate, Violation, explore, replay

__all__ = ["Certificate", "Violation", "explore", "replay"]
