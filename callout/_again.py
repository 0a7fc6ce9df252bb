"""Starting this very package once more, in a process of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def command(module: str, *arguments: str) -> list[str]:
    """Return what runs a module of the package. A folder ``callout`` where that is run is not taken for the package: a
    clone has one, whose modules are not those that were installed, nor compiled.
    """
    return [sys.executable, "-P", "-m", module, *arguments]


def environment(**more: str) -> dict[str, str]:
    """Return the environment for it: as here, and it finds the package where it is."""
    path = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, path))} | more
