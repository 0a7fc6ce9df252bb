"""Imports go one way, from ``_api`` down to ``_errors``; the tables say which way, the rest reads files with ``ast``.

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
    ("_api", "_lock_api", "_primitives", "freebsd13"),
    ("_system",),
    ("_machine",),
    ("_softclock",),
    ("_drain",),
    ("_engine",),
    ("_locks",),
    ("_rules", "_cpu"),
    ("_wheel",),
    ("_state",),
    ("_units", "_guard", "_log"),
    ("_errors",),
)

# The seam between the core and the world stands beside the core: what it sees, and who of the core sees it.
SEAM: Final = "_platform"
SEAM_SEES: Final = {"_state", "_units", "_errors"}
SEAM_SEEN_BY: Final = {"_primitives", "_system", "_machine", "_softclock", "_drain", "_engine", "_locks", "_cpu"}

# The one core module that builds the world and so may name it, and what of the world the others may not name.
BUILDER: Final = "_system"
WORLD: Final = {"_thread", "asyncio", "greenlet", "threading", "time", "trio"}

# The rooms, and what each sees besides itself; "__init__" is callout itself. "core" is every core module, "public" is
# every module whose path has no underscore in it. A name of a room or a module means all that is in it.
ROOMS: Final[Mapping[str, set[str]]] = {
    "__init__": {"core"},
    "__main__": {"public"},
    "platforms": {SEAM, "_errors", "_guard", "_state", "_units"},
    # These build worlds of their own, and so see what _system sees.
    "testing": {"core", "platforms.virtual"},
    "conformance": {"core", "platforms", "testing", "callout_linux"},
    "explore": {"__init__", "_errors", "platforms.virtual", "testing"},
    "cli": {"_errors", "conformance", "demo"},
    "demo": {"public"},
    "callout_linux": {"public"},
}

# Who may not name what outside the package, over and above the core.
MAY_NOT_NAME: Final[Mapping[str, set[str]]] = {"platforms.virtual": {"trio"}}


class Import(NamedTuple):
    """One imported module, by its full name."""

    name: str
    types_only: bool


def find(root: Path) -> dict[str, Path]:
    """Return module name -> file for both packages."""
    return {
        ".".join(file.relative_to(source).with_suffix("").parts).removesuffix(".__init__"): file
        for source, package in ((root, "callout"), (root / "compat", "callout_linux"))
        for file in sorted((source / package).rglob("*.py"))
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


def core_sees() -> dict[str, set[str]]:
    """Spell CORE and SEAM out: module -> modules that it may import."""
    sees = {SEAM: set(SEAM_SEES)}
    below: set[str] = set()
    for row in reversed(CORE):
        for name in row:
            sees[name] = below | ({SEAM} if name in SEAM_SEEN_BY else set())
        below |= set(row)
    sees[BUILDER] |= {"platforms"}
    return sees


CORE_SEES: Final = core_sees()


def allowed(room: str, target: str) -> bool:
    """Whether a module of *room*, which is a core module or a name of ROOMS, may import *target*."""
    sees = CORE_SEES[room] if room in CORE_SEES else ROOMS.get(room, set()) | {room}
    is_public = target == "__init__" or not any(part.startswith("_") for part in target.split("."))
    return (
        ("core" in sees and target in CORE_SEES)
        or ("public" in sees and is_public)
        or any(target == name or target.startswith(f"{name}.") for name in sees)
    )


def violations(module: str, source: str, *, is_package: bool = False) -> list[str]:
    """Return every import of *module* that the tables do not allow."""
    here = place(module)
    room = here.split(".")[0]
    banned = MAY_NOT_NAME.get(here, set())
    if room in CORE_SEES and room != BUILDER:
        banned = banned | WORLD
    found = []
    for name, types_only in read(module, source, is_package=is_package):
        top = name.split(".")[0]
        if top not in {"callout", "callout_linux"}:
            wrong = top in banned
        elif types_only and room in CORE_SEES and place(name) in CORE_SEES:
            wrong = False
        else:
            wrong = not allowed(room, place(name))
        if wrong:
            found.append(f"{module} may not import {name}")
    return found


def test_every_module_and_room_has_its_place() -> None:
    """A file under callout/ that no table places is an error, and so is a core module in a table that has no file."""
    rooms = {place(module).split(".")[0] for module in FILES}
    placed = CORE_SEES.keys() | ROOMS.keys()

    assert rooms - placed == set()
    assert CORE_SEES.keys() - rooms == set()


@pytest.mark.parametrize("module", FILES)
def test_imports_go_down(module: str) -> None:
    """No module imports from a row above its own, nor from a room that its own does not see."""
    file = FILES[module]
    found = violations(module, file.read_text("utf-8"), is_package=file.name == "__init__.py")

    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("callout._wheel", "from . import _engine"),
        ("callout._wheel", "from ._engine import Engine"),
        ("callout._wheel", "import callout._engine"),
        ("callout._wheel", "def f(): from callout._engine import Engine"),
        ("callout._rules", "from ._cpu import Cpu"),
        ("callout._errors", "import callout"),
        ("callout._wheel", "from ._platform import Platform"),
        ("callout._platform", "from ._locks import Mtx"),
        ("callout._state", "from time import monotonic_ns"),
        ("callout._engine", "import trio"),
        ("callout._softclock", "import trio.lowlevel"),
        ("callout._engine", "from .platforms.trio_loops import TrioPlatform"),
        ("callout._engine", "if TYPE_CHECKING: from .platforms.virtual import VirtualSMP"),
        ("callout.platforms.virtual", "import trio.testing"),
        ("callout.platforms.virtual", "from .._engine import Engine"),
        ("callout.explore.dfs", "from ..platforms import trio_loops"),
        ("callout.cli", "from callout._state import Callout"),
        ("callout.cli", "from callout.explore._tree import Node"),
        ("callout_linux.timer", "from callout import _api"),
        ("callout_linux.timer", "from callout._api import callout_stop"),
        ("callout", "from .testing import explore"),
    ],
)
def test_a_step_up_is_seen(module: str, source: str) -> None:
    """Each of these imports is reported, in whatever form and wherever in the file it is written."""
    assert len(violations(module, source, is_package=module == "callout")) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("callout._engine", "from . import _wheel, _errors\nfrom ._platform import Platform"),
        ("callout._state", "if TYPE_CHECKING: from ._cpu import Cpu"),
        ("callout._system", "import threading, trio\nfrom .platforms import trio_loops"),
        ("callout.platforms.virtual", "import greenlet\nfrom .._state import Callout\nfrom . import _heap"),
        ("callout.platforms.trio_loops", "import trio, threading\nfrom .._platform import Platform"),
        ("callout.explore.dfs", "from callout import CalloutError\nfrom ..platforms.virtual import VirtualSMP"),
        ("callout.explore.dfs", "from ._tree import Node"),
        ("callout.cli", "from callout.conformance import replay"),
        ("callout_linux.timer", "from callout import callout_stop\nfrom ._jiffies import jiffies"),
        ("callout", "from ._api import callout_stop\nfrom ._errors import CalloutError"),
    ],
)
def test_a_step_down_is_not(module: str, source: str) -> None:
    """None of these imports is reported."""
    assert violations(module, source, is_package=module == "callout") == []
