"""Running tests in a process that imports a mutant: for functions that have done their work when the import ends.

``python -m tests.mutants.fresh MODULE ITS_FILE CHANGED_FILE TESTS...``: exit status 0 if all pass.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from importlib import util
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any


class _Loader(SourceFileLoader):
    """Loads the changed source, which stands elsewhere."""

    def __init__(self, name: str, path: str, changed: str) -> None:
        super().__init__(name, path)
        self.changed = changed

    def get_code(self, fullname: str) -> CodeType:
        """Compile it as if it stood in the module's file."""
        return compile(ast.parse(self.changed), self.path, "exec", dont_inherit=True)


class _Finder:
    """Finds one module."""

    def __init__(self, name: str, path: str, changed: str) -> None:
        self.name, self.path, self.changed = name, path, changed

    def find_spec(self, name: str, path: object = None, target: object = None) -> Any:  # noqa: ANN401 - as importlib
        """Return where the mutant comes from."""
        if name != self.name:
            return None
        return util.spec_from_file_location(name, self.path, loader=_Loader(name, self.path, self.changed))


def main(name: str, path: str, changed: str, *files: str) -> int:
    """Have module *name*, of the file *path*, be what the file *changed* says; run the tests in *files*."""
    sys.meta_path.insert(0, _Finder(name, path, Path(changed).read_text(encoding="utf-8")))
    import pytest

    run: Callable[[list[str]], int | pytest.ExitCode] = pytest.main
    return int(run(["-q", "-x", "-p", "no:cacheprovider", *files]))


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
