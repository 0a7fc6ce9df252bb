"""What to import in tests of code that uses callouts."""

from ._vm import VirtualSMP

__all__ = ["VirtualSMP"]
