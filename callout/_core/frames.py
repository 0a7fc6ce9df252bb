"""Stack frames: whose code is that? The one module that looks at them.

Some messages name the caller, and a re-entrant call is recognised by what stands on the stack. Both need to know which
frames are the package's own. The demo is a user of the package, and so does not count.
"""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Final

_PACKAGE: Final = str(Path(__file__).parent.parent)
_OWN: Final = tuple(
    f"{_PACKAGE}{os.sep}{name}"
    for name in ("_core", "_locks", "_api", "_worlds", "testing", "freebsd13.py", "guest.py")
)


@lru_cache(maxsize=1024)
def _own(file: str) -> bool:
    return file.startswith(_OWN)


def is_own(frame: FrameType) -> bool:
    """Return whether *frame* runs code of the package itself."""
    return is_own_code(frame.f_code)


def is_own_code(code: CodeType) -> bool:
    """Return whether that is code of the package itself."""
    return _own(code.co_filename)


def caller(depth: int = 1) -> FrameType:
    """Return the first frame outside the package, from *depth* frames above this call; the last one if all are own."""
    frame = sys._getframe(depth)
    while frame.f_back is not None and is_own(frame):
        frame = frame.f_back
    return frame


def entry_frame(depth: int = 1) -> FrameType | None:
    """Return the frame of the package's function that the innermost code outside the package has called; None if there
    is no such code on the stack.
    """
    frame: FrameType | None = sys._getframe(depth)
    last = None
    while frame is not None and _own(frame.f_code.co_filename):  # is_own(), without its calls: once for each step
        last = frame
        frame = frame.f_back
    return None if frame is None else last


# Whose code the files have of which frames have been seen: the user's, that of this package and what is built on it
# (False), or that of a loop (None).
_WHOSE: Final[dict[str, bool | None]] = {}


def _whose(frame: FrameType) -> bool | None:
    file = frame.f_code.co_filename
    package = frame.f_globals.get("__name__", "").partition(".")[0]
    whose = None if package == "trio" else not (_own(file) or package == "callout_linux")
    if len(_WHOSE) > 4096:  # code that is generated has names of its own
        _WHOSE.clear()
    _WHOSE[file] = whose
    return whose


def spot(depth: int = 1) -> tuple[CodeType, int] | None:
    """Return where the user's own code is, from *depth* frames above this call: its code, and how far it is there.
    None if a loop has called the package, and nobody else. Quick: for every acquisition of a lock in checking mode.
    """
    frame: FrameType | None = sys._getframe(depth)
    while frame is not None:
        code = frame.f_code
        file = code.co_filename
        whose = _WHOSE[file] if file in _WHOSE else _whose(frame)
        if whose:
            return code, frame.f_lasti
        if whose is None:
            return None
        frame = frame.f_back
    return None


def place_of(code: CodeType, at: int) -> str:
    """Return file, line and function of what ``spot()`` has returned."""
    line = next((line for begins, ends, line in code.co_lines() if begins <= at < ends), None)
    return f"{code.co_filename}:{line} in {code.co_qualname}()"


def place(frame: FrameType) -> str:
    """Return file, line and function of *frame*."""
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_qualname}()"


def entry(depth: int = 1) -> str:
    """Return the name of the package's outermost function on the stack: what the user has called."""
    frame = sys._getframe(depth)
    name = ""
    while is_own(frame) and frame.f_back is not None:
        name = frame.f_code.co_name
        frame = frame.f_back
    return name
