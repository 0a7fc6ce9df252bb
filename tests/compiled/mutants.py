"""Mutants of the compiled core: ``python -m tests.compiled.mutants``. Each is compiled, and must be found.

They are the races of ``tests/mutants`` in modules that are compiled, and each is looked for by the search that finds it
in the pure core; then by others that find mutants of the same function, for ``results=True`` is not for C code. Nor is
the lock set, which sees each write to a field: what that alone sees in the pure core is told apart. ``--sample N``
takes N of them, spread over all. Exit status 1 if one is not found.
"""

from __future__ import annotations

import argparse
import ast
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final

from callout._core import sources
from tests.compiled.make import ROOT
from tests.mutants import found
from tests.mutants.operators import Mutation
from tests.mutants.races import all_races

OTHERS: Final = 12  # searches that a mutant is looked for by, if not found by its own
MINUTES: Final = 3  # for one search, after which it has failed: what C code does for ever nothing else interrupts
FOUND: Final = "found"
MISSED: Final = "MISSED"
BY_LOCKS: Final = "by the lock set alone"
NOTHING: Final = "it finds nothing either: see python -m tests.mutants --races --again"
# What does the same in C code, and why.
SAME: Final = {
    "_core.arm:initialize | c.c_cpu.id >= 0 (of c.c_cpu.id >= 0 and c.c_cpu.open) | dropped": (
        "what stands where a callout has no CPU has each field of one in a structure, and is not open"
    ),
}
COPIED: Final = shutil.ignore_patterns("*.so", "__pycache__", "built.json")


def chosen(only: Sequence[str] = ("",), sample: int | None = None) -> list[tuple[Mutation, str]]:
    """Return mutants, each with the name of what finds it."""
    killers = found.killers()
    compiled = {"callout." + each.replace("/", ".") for each in sources.MODULES}
    every = [
        (each, killers[each.name])
        for each in all_races()
        if each.name in killers and each.name not in SAME and each.module in compiled
    ]
    every = [each for each in every if any(text in each[0].name for text in only)]
    if sample is None or sample >= len(every):
        return every
    return [every[number * len(every) // sample] for number in range(sample)]


def run_python(*arguments: str, path: Path | None = None, pure: bool = False) -> subprocess.CompletedProcess[str]:
    """Run Python with the tests of this tree, and the package of this one or that in *path*, compiled if not *pure*."""
    places = [ROOT] if path is None else [path, path / "compat", ROOT]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, places)), "PYTHONSAFEPATH": "1"}
    env["CALLOUT_PURE"] = "1" if path is None or pure else "0"
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


def outcome(tree: Path, ready: Path, others: Mapping[str, list[str]], mutant: tuple[Mutation, str]) -> tuple[str, str]:
    """Compile a mutant and look for it; return what became of it, and what was seen."""
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
            return FOUND, f"it cannot be compiled: {why}"
        for each in dict.fromkeys([search, *others[function_of(mutation)][:OTHERS]]):
            seen = sought(each, its_own)
            if seen:
                return FOUND, f"{each}: {seen}"
        shutil.copytree(ROOT / "callout", its_tree / "pure/callout", ignore=COPIED)
        shutil.copytree(ROOT / "compat", its_tree / "pure/compat", ignore=COPIED)
        shutil.copy(its_own / f"callout/{module}.py", its_tree / f"pure/callout/{module}.py")
        seen = sought(search, its_tree / "pure", pure=True)
    return (BY_LOCKS if "is written without" in seen else MISSED), f"{search}: in the pure core {seen or NOTHING}"


def sought(search: str, path: Path, *, pure: bool = False) -> str:
    """Return what a search sees of the engine in *path*; "" if nothing."""
    try:
        done = run_python("-m", "tests.compiled.finds", search, path=path, pure=pure)
    except subprocess.TimeoutExpired:
        return "it does not end"
    if done.returncode < 0:
        return f"killed by signal {-done.returncode}"
    return "" if done.returncode else done.stdout.strip()


def function_of(mutation: Mutation) -> str:
    """Return the function that a mutant changes."""
    return mutation.name.partition(" | ")[0]


def main() -> int:
    """Do what the command line says; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.compiled.mutants", description=__doc__)
    parser.add_argument(
        "--only", nargs="+", default=[""], metavar="TEXT", help="those with one of these texts in their name"
    )
    parser.add_argument("--sample", type=int, metavar="N", help="so many, spread over all")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="so many at a time (2)")
    parser.add_argument(
        "--installed", type=Path, metavar="DIR", help="where callout was installed with CALLOUT_EXPLORABLE=1"
    )
    args = parser.parse_args()
    mutants = chosen(args.only, args.sample)
    others: dict[str, list[str]] = defaultdict(list)
    for mutation, search in chosen():
        others[function_of(mutation)].append(search)
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(args.workers) as pool:
        tree, ready = with_switch_points(Path(folder), args.installed)
        work = partial(outcome, tree, ready, others)
        for (mutation, _), (kind, said) in zip(mutants, pool.map(work, mutants), strict=True):
            outcomes[kind] += 1
            print(f"{kind}: {mutation.name}\n    {said}", flush=True)
    print(", ".join(f"{count} {kind}" for kind, count in outcomes.most_common()), f"of {len(mutants)}")
    return 1 if outcomes[MISSED] or not mutants else 0


if __name__ == "__main__":
    raise SystemExit(main())
