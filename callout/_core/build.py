"""Which core runs: the compiled one, or the same modules as they are.

What ``pip install`` compiles lies beside the modules, and Python prefers it. ``_built.json`` says of what it was made
and for which Python: a compiled core that does not belong to its source must not be used by mistake.

``CALLOUT_PURE=1`` in the environment chooses the pure core.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .errors import CoreError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

_HERE: Final = Path(__file__).parent
RECORD: Final = _HERE / "_built.json"
VARIABLE: Final = "CALLOUT_PURE"

# What is compiled. The last is written for it, and has no pure twin.
MODULES: Final = ("rawlock", "state", "wheel", "cpu", "cpulock", "arm", "stop", "short", "runs")
NATIVE: Final = ("nativelock",)


def sources() -> list[Path]:
    """Return the files of which the compiled core is made."""
    files = [_HERE / f"{name}{end}" for name in MODULES for end in (".py", ".pxd")]
    return [*files, *(_HERE / f"{name}.pyx" for name in NATIVE)]


def digest() -> str:
    """Return what tells these files from any others."""
    found = hashlib.sha256()
    for file in sources():
        found.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return found.hexdigest()


class _AsTheyAre(MetaPathFinder):
    """Finds the source of modules beside which a compiled one may lie."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        parent, _, name = fullname.rpartition(".")
        if parent != __package__:
            return None
        if name in NATIVE:
            raise ModuleNotFoundError(f"{fullname} belongs to the compiled core", name=fullname)
        return spec_from_file_location(fullname, _HERE / f"{name}.py") if name in MODULES else None


def _choose() -> tuple[str, str]:
    """Return which core runs, and if it is the pure one, why."""
    wish = os.environ.get(VARIABLE, "")
    if wish not in ("", "0", "1"):
        raise CoreError(f"{VARIABLE} is {wish!r}: say 1 for the pure core, or 0 or nothing for the compiled one")
    if wish == "1":
        return "pure", f"{VARIABLE} is set"
    if not RECORD.exists():
        return "pure", "nothing was compiled"
    built = json.loads(RECORD.read_text("utf-8"))
    if built["suffix"] is None:
        return "pure", str(built["why"])
    cure = f"install callout anew, or set {VARIABLE}=1 for the pure core"
    if built["suffix"] not in EXTENSION_SUFFIXES:
        raise CoreError(
            f"callout was compiled for another Python ({built['suffix']}, and this one takes {EXTENSION_SUFFIXES[0]}): "
            f"{cure}"
        )
    if built["sources"] != digest():
        raise CoreError(f"callout was compiled from other sources than those in {_HERE}: {cure}")
    return "compiled", ""


_CHOSEN: Final = _choose()
CORE: Final = _CHOSEN[0]
WHY: Final = _CHOSEN[1]  # if it is the pure one
if CORE == "pure":
    sys.meta_path.insert(0, _AsTheyAre())
