"""Files that a command is asked to read or to write."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO


def open_regular(path: Path | str) -> BinaryIO:
    """Open a file to be read; raise OSError if there is none, or if it is none that ends. Never blocks."""
    # Without O_NONBLOCK, opening a pipe that nobody writes to blocks for ever.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        _check_mode(os.fstat(descriptor).st_mode)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _check_mode(mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder")
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is not a regular file")


def try_writing(file: Path) -> None:
    """Raise OSError unless *file* can be written. It stays as it is, and if it is not there it will not be: there may
    be nothing to write.
    """
    new = not os.path.lexists(file)
    file.open("ab").close()
    if new:
        file.unlink()
