"""Files that a command is asked to write."""

from __future__ import annotations

import os
from pathlib import Path


def try_writing(file: Path) -> None:
    """Raise OSError unless *file* can be written. It stays as it is, and if it is not there it will not be: there may
    be nothing to write.
    """
    new = not os.path.lexists(file)
    file.open("ab").close()
    if new:
        file.unlink()
