"""Compiling modules of a copy of the package: ``python -m tests.compiled.make TREE INTO [MODULE...]``.

*TREE* is the copy, *INTO* the folder of another one that gets what is compiled, and a record that says so. Without a
module it is all of them. It wants what the build of the package wants: hatchling, Cython, setuptools, a C compiler.
"""

from __future__ import annotations

import json
import os
import runpy
import shutil
import sys
import tempfile
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

ROOT = Path(__file__).parents[2]


def make(tree: Path, into: Path, modules: list[str]) -> None:
    """Compile these modules of the package in *tree*."""
    compile_core = runpy.run_path(str(ROOT / "hatch_build.py"))["compile_core"]
    told = runpy.run_path(str(into / "callout/_core/sources.py"))
    files = [Path(f"callout/{each}.py") for each in modules] or [each.relative_to(into) for each in told["sources"]()]
    os.chdir(tree)
    with tempfile.TemporaryDirectory() as folder:
        for file in compile_core(files, Path(folder)):
            shutil.copy(file, into / file.relative_to(Path(folder, "lib")))
    record = {"suffix": EXTENSION_SUFFIXES[0], "sources": told["digest"]()}
    (into / "callout/_core/built.json").write_text(json.dumps(record), "utf-8")


if __name__ == "__main__":
    make(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
