"""Imports go one way, from ``_api`` down to ``_core.errors``: the tables say which, the rest reads files with ``ast``.

An import under ``if TYPE_CHECKING:`` may point upwards inside the core: a callout's record names the type of its CPU,
the CPU's record that of its callouts, and nothing of it runs. Between rooms it counts like any other.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import pytest

ROOT: Final = Path(__file__).parent.parent

# The core, top to bottom. A module sees the rows below its own; not its own, not those above.
CORE: Final = (
    ("_core.lifecycle",),
    ("_core.softclock", "_core.callback", "_core.invariants", "_core.sets", "_core.counters", "_core.snapshot"),
    ("_core.calls", "_core.periodic", "_core.methods"),
    ("_core.runs",),
    ("_core.short", "_core.drain", "_core.sleep"),
    ("_core.stop",),
    ("_core.arm",),
    ("_locks.mutex", "_locks.rwlock"),
    ("_locks.lock",),
    ("_locks.parking",),
    ("_core.checks", "_core.cpulock", "_core.witness"),
    ("_core.rules", "_core.results", "_core.machine", "_core.origins", "_core.once"),
    ("_core.cpu", "_core.deadline"),
    ("_core.wheel",),
    ("_core.state",),
    ("_core.seconds",),
    ("_core.refusal", "_core.signatures", "_core.units", "_core.guard", "_core.phases", "_core.levels"),
    ("_core.frames", "_core.describe", "_core.build", "_core.subclass", "_core.args", "_core.trace"),
    ("_core.sources",),
    ("_core.nativelock", "_core.serials"),
    ("_core.errors", "_core.rawlock", "_core.weak"),
)

# The seam between the core and the worlds stands beside the core: what it sees, and which core modules see it.
SEAM: Final = "_core.platform"
SEAM_SEES: Final = {"_core.rawlock", "_core.state", "_core.units", "_core.errors"}
SEAM_SEEN_BY: Final = {
    "_core.lifecycle",
    "_core.drain",
    "_core.sets",
    "_core.sleep",
    "_core.cpulock",
    "_core.machine",
    "_core.cpu",
    "_core.refusal",
    "_locks.lock",
    "_locks.mutex",
    "_locks.parking",
    "_locks.rwlock",
}

# What the engine is given of users, and names in its types: nothing of it runs there.
RECORD: Final = "_api.callout"

# What of the world the core may not name.
WORLD: Final = {"_thread", "asyncio", "greenlet", "structlog", "threading", "time", "trio"}

# The rooms, and what each sees besides itself; "__init__" is callout itself. "core" is every core module and the seam,
# "public" is every module whose path has no underscore in it. A name of a room or a module means all that is in it.
ROOMS: Final[Mapping[str, set[str]]] = {
    "__init__": {"core", "_api", "_worlds.trio"},
    "__main__": {"public"},
    "_core": set(),  # their __init__
    "_locks": set(),
    "_worlds": set(),
    "_worlds.guest": {"core", "_worlds.trio", "_api.callout", "_api.making"},
    "_worlds.rawlocks": {"core"},
    "_worlds.trio": {"core", "_api.callout", "_api.making", "_api.starting", "_worlds.rawlocks", "top._sockets"},
    "_worlds.virtual": {"core", "_api.callout", "_api.making"},
    "_worlds.manual": {"core", "_api.callout", "_api.making", "_worlds.rawlocks"},
    "_api": {"core"},
    "freebsd13": {"core", "_api.callout"},
    "guest": {"core", "_worlds.trio", "_worlds.guest"},
    "abc": {"core", "_api.shapes"},
    "testing": {"core", "_api", "_worlds.virtual", "_worlds.manual"},
    # What test authors are given on top of it all.
    "testing._cut_short": {"explore"},
    "testing._mutants": {"public", "testing"},
    "testing._teardown": {"public", "testing", "explore"},
    "testing._leftovers": {"public", "core", "testing"},
    "testing._pytest_plugin": {"core", "testing", "explore"},
    "_callout_pytest": {"public", "testing"},
    # It builds worlds of its own, and so sees what they are made of.
    "conformance": {"core", "_files", "_terminal", "_api", "_worlds", "freebsd13", "testing", "callout_linux"},
    "explore": {"core", "_files", "_api.callout", "_worlds.virtual", "testing"},
    "_again": set(),
    "_files": set(),
    "_terminal": set(),
    "museum": {"__init__", "_files", "_terminal", "testing", "explore", "_worlds.virtual", "callout_linux"},
    "bench": {"__init__", "_again", "_files", "_terminal", "guest", "callout_linux"},
    "soak": {"__init__", "_terminal", "callout_linux"},
    "cli": {"core", "_again", "_terminal", "bench", "conformance", "demo", "museum", "soak", "top"},
    "top": {"core", "_terminal"},
    "demo": {"public", "_files", "_terminal"},
    "examples": {"public"},
    "callout_linux": {"public"},
}

# Which room may not name what outside the package, over and above the core.
MAY_NOT_NAME: Final[Mapping[str, set[str]]] = {
    "_worlds.virtual": {"trio", "threading", "time"},
    "_worlds.manual": {"trio", "greenlet", "time"},
}


class Import(NamedTuple):
    """One imported module, by its full name."""

    name: str
    types_only: bool


def find(root: Path) -> dict[str, Path]:
    """Return module name -> file for both packages, and for what pytest loads, which stands alone."""
    return {
        "_callout_pytest": root / "compat" / "_callout_pytest.py",
    } | {
        ".".join(file.relative_to(source).with_suffix("").parts).removesuffix(".__init__"): file
        for source, package in ((root, "callout"), (root / "compat", "callout_linux"))
        for file in sorted((source / package).rglob("*.py*"))
        if file.suffix in {".py", ".pyi"}  # a stub stands for what is compiled only
    }


FILES: Final = find(ROOT)


def read(module: str, source: str, *, is_package: bool = False) -> Iterator[Import]:
    """Yield what *module* imports, at its top or inside a function, relative names resolved."""
    tree = ast.parse(source)
    for_types = {
        node
        for guard in ast.walk(tree)
        if isinstance(guard, ast.If) and ast.unparse(guard.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}
        for child in guard.body
        for node in ast.walk(child)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node in for_types)
        elif isinstance(node, ast.ImportFrom):
            parts = module.split(".") + ["__init__"] * is_package
            base = ".".join(parts[: -node.level] if node.level else [])
            origin = ".".join(filter(None, (base, node.module)))
            for alias in node.names:
                # "from package import name" imports a module if there is one of that name.
                inner = f"{origin}.{alias.name}"
                yield Import(inner if inner in FILES else origin, node in for_types)


def place(module: str) -> str:
    """Return a module's name as the tables write it: without ``callout.``, and ``__init__`` for the package itself."""
    return "__init__" if module == "callout" else module.removeprefix("callout.")


def room_of(here: str) -> str:
    """Return the core module or the room that a module is, or is in."""
    if here in CORE_SEES:
        return here
    parts = here.split(".")
    return next(name for n in range(len(parts), 0, -1) if (name := ".".join(parts[:n])) in ROOMS or n == 1)


def core_sees() -> dict[str, set[str]]:
    """Spell CORE and SEAM out: module -> modules that it may import."""
    sees = {SEAM: set(SEAM_SEES)}
    below: set[str] = {"_core", "_locks"}
    for row in reversed(CORE):
        for name in row:
            sees[name] = below | ({SEAM} if name in SEAM_SEEN_BY else set())
        below |= set(row)
    return sees


CORE_SEES: Final = core_sees()


def allowed(room: str, target: str) -> bool:
    """Whether a module of *room*, which is a core module or a name of ROOMS, may import *target*."""
    if room in CORE_SEES:
        return target in CORE_SEES[room]
    sees = ROOMS.get(room, set()) | {room}
    is_public = target == "__init__" or not any(part.startswith("_") for part in target.split("."))
    return (
        ("core" in sees and (target in CORE_SEES or target == "_core"))
        or ("public" in sees and is_public)
        or any(target == name or target.startswith(f"{name}.") for name in sees)
    )


def violations(module: str, source: str, *, is_package: bool = False) -> list[str]:
    """Return every import of *module* that the tables do not allow."""
    here = place(module)
    room = room_of(here)
    banned = MAY_NOT_NAME.get(room, set())
    if room in CORE_SEES:
        banned = banned | WORLD
    found = []
    for name, types_only in read(module, source, is_package=is_package):
        top = name.split(".")[0]
        if top not in {"callout", "callout_linux", "_callout_pytest"}:
            wrong = top in banned
        elif types_only and room in CORE_SEES and (place(name) in CORE_SEES or place(name) == RECORD):
            wrong = False
        else:
            wrong = not allowed(room, place(name))
        if wrong:
            found.append(f"{module} may not import {name}")
    return found


def test_every_module_and_room_has_its_place() -> None:
    """A file that no table places is an error, and so is a core module or room in a table that has no file."""
    rooms = {room_of(place(module)) for module in FILES}

    assert rooms - (CORE_SEES.keys() | ROOMS.keys()) == set()
    assert (CORE_SEES.keys() | ROOMS.keys()) - rooms == set()


@pytest.mark.parametrize("module", FILES)
def test_imports_go_down(module: str) -> None:
    """No module imports from a row above its own, nor from a room that its own does not see."""
    file = FILES[module]
    found = violations(module, file.read_text("utf-8"), is_package=file.name == "__init__.py")

    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("callout._core.wheel", "from . import arm"),
        ("callout._core.wheel", "from .._api.callout import Callout"),
        ("callout._core.wheel", "from .arm import stop"),
        ("callout._core.wheel", "import callout._core.arm"),
        ("callout._core.wheel", "def f(): from callout._core.arm import stop"),
        ("callout._core.rules", "from .arm import arm"),
        ("callout._core.errors", "import callout"),
        ("callout._core.wheel", "from .platform import Platform"),
        ("callout._core.platform", "from .._locks.mutex import Mtx"),
        ("callout._core.state", "from time import monotonic_ns"),
        ("callout._core.arm", "import trio"),
        ("callout._core.softclock", "import trio.lowlevel"),
        ("callout._core.softclock", "import structlog"),
        ("callout._core.arm", "from .._worlds.trio.platform import TrioPlatform"),
        ("callout._core.arm", "if TYPE_CHECKING: from .._worlds.virtual.platform import VirtualPlatform"),
        ("callout._worlds.virtual.platform", "import trio.testing"),
        ("callout._worlds.virtual.platform", "from ..trio import system"),
        ("callout._worlds.virtual.platform", "from ..._api import callout9"),
        ("callout._worlds.trio.system", "from ..._api.callout9 import callout_stop"),
        ("callout.explore.dfs", "from .._worlds.trio import system"),
        ("callout._api.callout9", "from .._worlds.trio import system"),
        ("callout.cli", "from callout._api.callout9 import callout_stop"),
        ("callout.cli", "from callout.explore._tree import Node"),
        ("callout_linux.timer", "from callout import _api"),
        ("callout_linux.timer", "from callout._api.callout9 import callout_stop"),
        ("callout", "from .testing import explore"),
    ],
)
def test_a_step_up_is_seen(module: str, source: str) -> None:
    """Each of these imports is reported, in whatever form and wherever in the file it is written."""
    assert len(violations(module, source, is_package=module == "callout")) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("callout._core.drain", "from . import wheel, errors\nfrom .platform import Platform"),
        ("callout._core.state", "if TYPE_CHECKING: from .cpu import Cpu"),
        ("callout._core.state", "if TYPE_CHECKING: from .._api.callout import Callout"),
        ("callout._worlds.trio.system", "import threading, trio\nfrom . import platform"),
        (
            "callout._worlds.virtual.platform",
            "import greenlet\nfrom ..._api.callout import Callout",
        ),
        ("callout._worlds.trio.platform", "import trio, threading\nfrom ..._core.platform import Platform"),
        ("callout.explore.dfs", "from .._core.errors import CalloutError\nfrom .._worlds.virtual.vm import VirtualSMP"),
        ("callout.explore.dfs", "from ._tree import Node"),
        ("callout.cli", "from callout.conformance import replay"),
        ("callout_linux.timer", "from callout import callout_stop\nfrom ._jiffies import jiffies"),
        ("callout", "from ._api.callout9 import callout_stop\nfrom ._core.errors import CalloutError"),
    ],
)
def test_a_step_down_is_not(module: str, source: str) -> None:
    """None of these imports is reported."""
    assert violations(module, source, is_package=module == "callout") == []


def test_the_lock_of_a_cpu_is_acquired_in_one_place() -> None:
    """Outside of cpulock only the short paths, which are cpulock's lines written out, mark a CPU as busy."""
    marks = {
        file.stem
        for file in sorted((ROOT / "callout").rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.Assign)
        and ast.unparse(node.value) == "True"
        and any(isinstance(target, ast.Attribute) and target.attr == "busy" for target in node.targets)
    }

    assert marks == {"cpulock", "short"}
