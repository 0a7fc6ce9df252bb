"""``s``: the stage of a test, once for each world and for one and two CPUs; ``s2``: only those with two."""

from __future__ import annotations

from tests.conformance.conftest import make_world, s, s2

__all__ = ["make_world", "s", "s2"]
