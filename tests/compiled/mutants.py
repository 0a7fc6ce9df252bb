"""Mutants of the compiled core: ``python -m tests.compiled.mutants``. Each is compiled, and must be found.

They are the races of ``tests/mutants`` in modules that are compiled, and each is looked for by the search that finds it
in the pure core. ``--sample N`` takes N of them, spread over all. Exit status 1 if one is not found.
"""

from __future__ import annotations

import argparse
import ast
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final

from callout._core import sources
from tests.compiled.make import ROOT
from tests.mutants import found
from tests.mutants.operators import Mutation
from tests.mutants.races import all_races

MINUTES: Final = 3  # for one search, after which it has failed: what C code does for ever nothing else interrupts
COPIED: Final = shutil.ignore_patterns("*.so", "__pycache__", "built.json")


def chosen(only: str, sample: int | None) -> list[tuple[Mutation, str]]:
    """Return mutants, each with the name of what finds it."""
    killers = found.killers()
    compiled = {"callout." + each.replace("/", ".") for each in sources.MODULES}
    every = [
        (each, killers[each.name])
        for each in all_races()
        if each.name in killers and each.module in compiled and only in each.name
    ]
    if sample is None or sample >= len(every):
        return every
    return [every[number * len(every) // sample] for number in range(sample)]


def run_python(*arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run Python with the tests of this tree, and the package of this one or that in *path*, compiled."""
    places = [ROOT] if path is None else [path, path / "compat", ROOT]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, places)), "PYTHONSAFEPATH": "1"}
    env["CALLOUT_PURE"] = "1" if path is None else "0"
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=60 * MINUTES,
    )


def make(tree: Path, into: Path, *modules: str) -> str:
    """Compile modules of *tree* for *into*; return why that failed, or ""."""
    done = run_python("-m", "tests.compiled.make", str(tree), str(into), *modules)
    return "" if done.returncode == 0 else (done.stdout + done.stderr).strip()[-2000:]


def with_switch_points(folder: Path, installed: Path | None) -> tuple[Path, Path]:
    """Return a tree of the engine's source, and one that has it compiled, *installed* or made here: to be explored."""
    tree, ready = folder / "source", folder / "ready"
    shutil.copytree(ROOT / "callout", tree / "callout", ignore=COPIED)
    sources.add_switch_points(tree / "callout")
    shutil.copytree(ROOT / "compat", ready / "compat", ignore=COPIED)
    if installed is not None:
        shutil.copytree(installed / "callout", ready / "callout")
        return tree, ready
    shutil.copytree(ROOT / "callout", ready / "callout", ignore=COPIED)
    why = make(tree, ready)
    if why:
        raise SystemExit(f"the engine cannot be compiled: {why}")
    return tree, ready


def outcome(tree: Path, ready: Path, mutant: tuple[Mutation, str]) -> tuple[bool, str]:
    """Compile a mutant and look for it; return whether it was found, and what was seen."""
    mutation, search = mutant
    module = mutation.module.removeprefix("callout.").replace(".", "/")
    with tempfile.TemporaryDirectory() as folder:
        its_tree, its_own = Path(folder, "source"), Path(folder, "ready")
        shutil.copytree(tree, its_tree)
        shutil.copytree(ready, its_own)
        for copy in (its_tree, its_own):
            (copy / f"callout/{module}.py").write_text(ast.unparse(mutation.tree()), "utf-8")
        why = make(its_tree, its_own, module)
        if why:
            return False, f"it cannot be compiled: {why}"
        try:
            done = run_python("-m", "tests.compiled.finds", search, path=its_own)
        except subprocess.TimeoutExpired:
            return True, f"{search}: it does not end"
    said = done.stdout.strip() or done.stderr.strip()[-500:]
    return done.returncode == 0 or done.returncode < 0, f"{search}: {said or f'exit status {done.returncode}'}"


def main() -> int:
    """Do what the command line says; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.compiled.mutants", description=__doc__)
    parser.add_argument("--only", default="", metavar="TEXT", help="those with TEXT in their name")
    parser.add_argument("--sample", type=int, metavar="N", help="so many, spread over all")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="so many at a time (2)")
    parser.add_argument(
        "--installed", type=Path, metavar="DIR", help="where callout was installed with CALLOUT_EXPLORABLE=1"
    )
    args = parser.parse_args()
    mutants = chosen(args.only, args.sample)
    missed = 0
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(args.workers) as pool:
        tree, ready = with_switch_points(Path(folder), args.installed)
        for (mutation, _), (was_found, said) in zip(
            mutants, pool.map(partial(outcome, tree, ready), mutants), strict=True
        ):
            missed += not was_found
            print(f"{'found' if was_found else 'MISSED'}: {mutation.name}\n    {said}", flush=True)
    print(f"{len(mutants) - missed} of {len(mutants)} mutants were found")
    return 1 if missed or not mutants else 0


if __name__ == "__main__":
    raise SystemExit(main())
