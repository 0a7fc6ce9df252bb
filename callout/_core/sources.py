"""Of which files the compiled core is made. Imports nothing of the package: the build runs it by itself."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

# What is compiled. The last is written for it, and has no pure twin.
MODULES: Final = ("rawlock", "state", "wheel", "cpu", "machine", "cpulock", "arm", "stop", "short", "runs")
NATIVE: Final = ("nativelock",)

HERE: Final = Path(__file__).parent
RECORD: Final = HERE / "built.json"  # what the build has to say


def sources() -> list[Path]:
    """Return what is compiled, a file for each module."""
    return [*(HERE / f"{name}.py" for name in MODULES), *(HERE / f"{name}.pyx" for name in NATIVE)]


def digest() -> str:
    """Return what tells these files, and the types beside them, from any others."""
    found = hashlib.sha256()
    for file in (*sources(), *(HERE / f"{name}.pxd" for name in MODULES)):
        found.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return found.hexdigest()
