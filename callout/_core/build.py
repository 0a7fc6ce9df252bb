"""Which core runs: the compiled one, or the same modules as they are.

What ``pip install`` compiles lies beside the modules, and Python prefers it. A record says of what it was made and for
which Python: a compiled core that does not belong to its source must not be used by mistake.

``CALLOUT_PURE=1`` in the environment chooses the pure core.
"""

from __future__ import annotations

import json
import os
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec
from importlib.util import spec_from_file_location
from typing import TYPE_CHECKING, Final

from .errors import CoreError
from .sources import MODULES, NATIVE, PACKAGE, RECORD, digest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

VARIABLE: Final = "CALLOUT_PURE"
COMPILED: Final = "compiled"
PURE: Final = "pure"

_PACKAGE: Final = __name__.partition(".")[0]


class _AsTheyAre(MetaPathFinder):
    """Finds the source of modules beside which a compiled one may lie."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, rest = fullname.partition(".")
        name = rest.replace(".", "/")
        if package != _PACKAGE:
            return None
        if name in NATIVE:
            raise ModuleNotFoundError(f"{fullname} belongs to the compiled core", name=fullname)
        return spec_from_file_location(fullname, PACKAGE / f"{name}.py") if name in MODULES else None


def choose() -> tuple[str, str]:
    """Return which core is to run, and if it is the pure one, why.

    Raises:
        CoreError: the compiled core is another's, or the wish is none.
    """
    wish = os.environ.get(VARIABLE, "")
    if wish not in ("", "0", "1"):
        raise CoreError(f"{VARIABLE} is {wish!r}: say 1 for the pure core, or 0 or nothing for the compiled one")
    if wish == "1":
        return PURE, f"{VARIABLE} is set"
    if not RECORD.exists():
        return PURE, "nothing was compiled"
    cure = f"install callout anew, or set {VARIABLE}=1 for the pure core"
    try:
        built = json.loads(RECORD.read_text("utf-8"))
        suffix, why, made_of = built["suffix"], built.get("why", ""), built.get("sources")
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CoreError(f"what {RECORD} says of the compiled core cannot be read: {cure}") from None
    if suffix is None:
        return PURE, str(why)
    if suffix not in EXTENSION_SUFFIXES:
        raise CoreError(
            f"callout was compiled for another Python ({suffix}, and this one takes {EXTENSION_SUFFIXES[0]}): {cure}"
        )
    missing = [name for name in (*MODULES, *NATIVE) if not (PACKAGE / f"{name}{suffix}").is_file()]
    if missing:
        raise CoreError(f"of the compiled core {missing[0]}{suffix} is missing in {PACKAGE}: {cure}")
    if made_of != digest():
        raise CoreError(f"callout was compiled from other sources than those in {PACKAGE}: {cure}")
    return COMPILED, ""


_CHOSEN: Final = choose()
CORE: Final = _CHOSEN[0]
WHY: Final = _CHOSEN[1]  # if it is the pure one
if CORE == PURE:
    sys.meta_path.insert(0, _AsTheyAre())
