"""Wrong versions of the remedies of the museum, each a few lines of a model that are written otherwise: planted.txt.

A remedy that is clean because its model does not look, or because it does not do its work, proves nothing. So each one
has mistakes here that its own model must find: a wait that is left out, or comes once where it must be repeated, a look
that is left out, a lock that is released too early, work that is not done at all.

``exhibits()`` is the museum with one of them in it.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import re
import sys
from pathlib import Path
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Final, NamedTuple

import callout
import callout.museum

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

NAME: Final = "callout.museum"
FOLDER: Final = Path(callout.museum.__file__).parent


class Planted(NamedTuple):
    """One wrong version of one remedy or more."""

    remedies: tuple[str, ...]  # that must find it, as "R0.1 order-fix"
    says: str  # what is wrong
    module: str
    right: str  # this text, which the module has once,
    wrong: str  # is replaced by this one


class _Loader(importlib.machinery.SourceFileLoader):
    """Loads the module with the mistake in it."""

    def __init__(self, planted: Planted, fullname: str, path: str) -> None:
        super().__init__(fullname, path)
        self.planted = planted

    def get_code(self, fullname: str) -> CodeType:
        """Compile it; no file is written."""
        text = Path(self.path).read_text("utf-8")
        assert text.count(self.planted.right) == 1, (
            f"{self.planted.module} has it {text.count(self.planted.right)} times: {self.planted.right!r}"
        )
        return compile(text.replace(self.planted.right, self.planted.wrong), self.path, "exec")


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the module with the mistake before the right one is found."""

    def __init__(self, planted: Planted) -> None:
        self.planted = planted

    def find_spec(
        self, fullname: str, _path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Find it, and nothing else."""
        if fullname != f"{NAME}.{self.planted.module}":
            return None
        path = str(FOLDER / f"{self.planted.module}.py")
        return importlib.util.spec_from_file_location(fullname, path, loader=_Loader(self.planted, fullname, path))


def exhibits(planted: Planted) -> Mapping[str, callout.museum.Exhibit]:
    """Return a museum of its own with the mistake in it. The one that everybody uses stays as it is."""
    ours = {name: sys.modules.pop(name) for name in list(sys.modules) if name == NAME or name.startswith(f"{NAME}.")}
    finder = _Finder(planted)
    sys.meta_path.insert(0, finder)
    try:
        museum: Mapping[str, callout.museum.Exhibit] = importlib.import_module(NAME).EXHIBITS
    finally:
        sys.meta_path.remove(finder)
        for name in list(sys.modules):
            if name == NAME or name.startswith(f"{NAME}."):
                del sys.modules[name]
        sys.modules.update(ours)
        callout.museum = ours[NAME]
    return museum


def read(text: str) -> Iterator[Planted]:
    """Yield what planted.txt has."""
    for block in re.split(r"\n\n+", text.strip()):
        if block.startswith("#"):
            continue
        title, module, *lines = block.split("\n")
        remedies, _, says = title.partition(": ")
        right, wrong = ("\n".join(line[1:] for line in lines if line[0] == sign) for sign in "-+")
        yield Planted(tuple(remedies.split(", ")), says, module.removeprefix("@"), right, wrong)


PLANTED: Final = tuple(read(Path(__file__).with_suffix(".txt").read_text("utf-8")))
