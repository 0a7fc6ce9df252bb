"""Of which files the compiled core is made. Imports nothing of the package: the build runs it by itself."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

# What is compiled, of the package. The last is written for it, and has no pure twin.
MODULES: Final = (
    *(f"_core/{name}" for name in ("rawlock", "state", "wheel", "cpu", "machine", "cpulock", "arm", "stop", "short")),
    *("_core/runs", "_locks/lock", "_locks/mutex"),
)
NATIVE: Final = ("_core/nativelock",)

PACKAGE: Final = Path(__file__).parent.parent
RECORD: Final = PACKAGE / "_core/built.json"  # what the build has to say


def sources() -> list[Path]:
    """Return what is compiled, a file for each module."""
    return [*(PACKAGE / f"{name}.py" for name in MODULES), *(PACKAGE / f"{name}.pyx" for name in NATIVE)]


def digest() -> str:
    """Return what tells these files, and the types beside them, from any others."""
    found = hashlib.sha256()
    for file in (*sources(), *(PACKAGE / f"{name}.pxd" for name in MODULES)):
        found.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return found.hexdigest()
