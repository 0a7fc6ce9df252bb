"""The raw locks of the worlds that have real threads: a ``threading.RLock``, or what the compiled core has instead."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import cast

from .._core.build import CORE
from .._core.rawlock import RawLock

new_lock: Callable[[], RawLock] = cast("Callable[[], RawLock]", threading.RLock)
if CORE == "compiled":
    from .._core.nativelock import NativeLock

    new_lock = NativeLock
