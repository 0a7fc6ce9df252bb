"""Of which files the compiled core is made. Imports nothing of the package: the build runs it by itself."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Final

# What is compiled, of the package. The last is written for it, and has no pure twin.
MODULES: Final = (
    *(f"_core/{name}" for name in ("rawlock", "state", "wheel", "cpu", "machine", "cpulock", "arm", "stop", "short")),
    *("_core/methods", "_core/runs", "_locks/lock", "_locks/mutex"),
)
NATIVE: Final = ("_core/nativelock",)

# The fields of a callout that are read without a lock.
RACY: Final = ("c_cpu", "state", "run", "arg")

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


def add_switch_points(package: Path) -> None:
    """Have the records of the package in that folder be compiled so that a subclass sees each use of a racy field.

    An exploration switches there. For nothing else: it makes every call some times slower.
    """
    file, types = package / "_core/state.py", package / "_core/state.pxd"
    code, fields = file.read_text("utf-8"), types.read_text("utf-8")
    before, begins, rest = code.partition("class Record(Link):")
    inside, init, after = rest.partition("    def __init__(self)")
    for name in RACY:
        inside, annotations = re.subn(rf"^    {name}: .*\n", "", inside, flags=re.MULTILINE)
        fields, declarations = re.subn(
            rf"cdef public (\w+) {name}$", rf"cdef \1 plain_{name}", fields, flags=re.MULTILINE
        )
        if annotations != 1 or declarations != 1:
            raise ValueError(f"Record.{name} is not where it was")
        inside += _PROPERTY.format(name=name)
    code = before + begins + inside + init + after
    if code.count(_BLIND) != 1:
        raise ValueError(f"{_BLIND!r} is not where it was")
    file.write_text(code.replace(_BLIND, "SEES_READS: Final = True"), "utf-8")
    types.write_text(fields, "utf-8")


_BLIND: Final = "SEES_READS: Final = CORE == PURE"
_PROPERTY: Final = """\
    @property
    def {name}(self):
        return self.plain_{name}

    @{name}.setter
    def {name}(self, value):
        self.plain_{name} = value

"""
