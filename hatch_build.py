"""Compiles the core when the package is built, if there is a C compiler; without one the package is pure, and says so.

``pip install .`` does this; ``CALLOUT_PURE=1 pip install .`` does not. An editable install is pure: what is compiled
would be out of date after the next change. ``CALLOUT_EXPLORABLE=1 pip install .`` makes a compiled core that can be
explored, and is slow.
"""

from __future__ import annotations

import json
import os
import runpy
import shutil
import sysconfig
import tempfile
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any, Final

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

CORE: Final = Path("callout/_core")
FLAGS: Final = [] if os.name == "nt" else ["-g0"]  # no debugging symbols: they are nine tenths
DIRECTIVES: Final = {
    "annotation_typing": False,  # the .pxd files say what is typed how
    "binding": True,  # compiled functions have signatures, as others have
    "infer_types": True,
    "language_level": 3,
    "nonecheck": True,  # a callout that was never made is an error, not a crash
}


def compile_core(sources: list[Path], build: Path) -> list[Path]:
    """Compile these files, of the tree that this is called in, into the folder *build*; return what was made."""
    from Cython.Build import cythonize  # noqa: PLC0415 - it may be missing
    from setuptools import Distribution, Extension  # noqa: PLC0415 - as above

    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        raise NotImplementedError("there was no compiled core for a Python without a GIL")
    extensions = cythonize(
        [
            Extension(".".join(file.with_suffix("").parts), [str(file)], extra_compile_args=FLAGS)
            for file in (each.resolve().relative_to(Path.cwd()) for each in sources)
        ],
        build_dir=str(build / "c"),
        compiler_directives=DIRECTIVES,
        quiet=True,
    )
    command: Any = Distribution({"name": "callout", "ext_modules": extensions}).get_command_obj("build_ext")
    command.build_lib, command.build_temp = str(build / "lib"), str(build / "o")
    command.parallel = os.cpu_count()
    command.ensure_finalized()
    command.run()
    return sorted(file for file in (build / "lib").rglob("*") if file.is_file())


def explorable(build: Path) -> Path:
    """Return a copy of the tree that this is called in, in the folder *build*: with switch points."""
    copy = build / "explorable"
    shutil.copytree(CORE.parent, copy / CORE.parent, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    told = runpy.run_path(str(CORE / "sources.py"))
    told["add_switch_points"](copy / CORE.parent)
    return copy


def _why(error: BaseException) -> str:
    if isinstance(error, NotImplementedError):
        return str(error)
    if isinstance(error, ImportError):
        return f"{error.name} was missing"
    return "there was no C compiler, or it failed (pip install -v shows how)"


class CompilingHook(BuildHookInterface[Any]):
    """Adds the compiled core to a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, unless somebody wants it pure."""
        if self.target_name != "wheel" or version == "editable":
            return
        self._build = tempfile.TemporaryDirectory()
        build = Path(self._build.name)
        os.chdir(self.root)
        told = runpy.run_path(str(CORE / "sources.py"))
        record: dict[str, str | None]
        made: list[Path] = []
        try:
            if os.environ.get("CALLOUT_PURE") == "1":
                raise NotImplementedError("CALLOUT_PURE was set")  # noqa: TRY301 - one way out
            record = {"suffix": EXTENSION_SUFFIXES[0], "sources": told["digest"]()}
            if os.environ.get("CALLOUT_EXPLORABLE") == "1":
                os.chdir(explorable(build))
            made = compile_core(told["sources"](), build)
        except (Exception, SystemExit) as error:  # distutils ends the program when a compiler fails
            why = _why(error)
            record = {"suffix": None, "why": f"when it was installed, {why}"}
            self.app.display_warning(f"callout: {why}; the pure core is installed")
        (build / "built.json").write_text(json.dumps(record), "utf-8")
        build_data["force_include"] |= {str(file): str(file.relative_to(build / "lib")) for file in made}
        build_data["force_include"][str(build / "built.json")] = str(CORE / "built.json")
        if made:
            build_data["pure_python"] = False
            build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was made on the way."""
        if hasattr(self, "_build"):
            self._build.cleanup()
