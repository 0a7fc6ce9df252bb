"""The one profile function that a thread can have (``sys.setprofile``), and who else wants it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, cast

Profile = Callable[[FrameType, str, object], None]


def profile_function() -> Profile | None:
    """Return that of this thread, if it has one that is a function: a profiler that is written in C is none."""
    function: object = sys.getprofile()
    return cast("Profile", function) if callable(function) else None


@contextmanager
def profiled(function: Profile | None) -> Iterator[None]:
    """Have that function in the block, or none, and then what there was before."""
    before: Any = sys.getprofile()
    sys.setprofile(cast("Callable[[FrameType, str, Any], object] | None", function))
    try:
        yield
    finally:
        if before is None or callable(before):
            sys.setprofile(before)
        else:
            before.enable()  # cProfile, up to CPython 3.11
