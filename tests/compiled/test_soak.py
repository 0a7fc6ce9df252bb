"""The soak, for a moment: with whatever core there is."""

from __future__ import annotations

import trio

from . import soak


def test_nothing_is_lost_with_four_threads() -> None:
    """Every arming was dequeued, replaced, or has run."""
    assert trio.run(soak.main, 0.5, 4) == 0
