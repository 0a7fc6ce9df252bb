"""Which killer executes which statements, and how long it takes: kept in a file, and good while the sources are."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.mutants import operators, plant
from tests.mutants.killers import Killer


def fingerprint() -> str:
    """Return what changes when a module of the engine does."""
    digest = hashlib.sha256()
    for name in operators.modules():
        digest.update(operators.path_of(name).read_bytes())
    return digest.hexdigest()


def file_of(folder: Path, what: str) -> Path:
    """Return the file for the killers of one kind or folder."""
    return folder / f"map-{what.replace('/', '-')}.jsonl"


def is_good(file: Path) -> bool:
    """Whether *file* is there, and of this engine."""
    if not file.exists():
        return False
    with file.open(encoding="utf-8") as lines:
        return bool(json.loads(next(lines))["sources"] == fingerprint())


def record(killers: Iterable[Killer], file: Path, say: Callable[[str], None]) -> None:
    """Run every killer that is not in the file yet, and write what it executes. One that fails without a mutant is
    none, and is named.
    """
    known = read([file]) if is_good(file) else {}
    hits = plant.plant_marks()
    empty = bytes(len(hits))
    part = file.with_suffix(".part")  # what was cut short is not taken for the whole
    with part.open("w", encoding="utf-8") as out:
        out.write(json.dumps({"sources": fingerprint()}) + "\n")
        for killer in killers:
            if killer.name in known:
                out.write(json.dumps([killer.name, *known[killer.name]]) + "\n")
                continue
            hits[:] = empty
            begun = time.perf_counter()
            why = killer.failure()
            seconds = time.perf_counter() - begun
            if why:
                say(f"fails by itself: {killer.name}: {why.splitlines()[0][:150]}")
                continue
            lines = [at for at, hit in enumerate(hits[:]) if hit]
            if lines:
                out.write(json.dumps([killer.name, round(seconds, 5), lines]) + "\n")
    part.rename(file)


def read(files: Iterable[Path]) -> dict[str, tuple[float, list[int]]]:
    """Return for each killer its seconds and its marks. Raises LookupError if the sources have changed."""
    out: dict[str, tuple[float, list[int]]] = {}
    for file in files:
        if not is_good(file):
            raise LookupError(f"{file}: the engine has changed since; make it anew with --map")
        with file.open(encoding="utf-8") as lines:
            next(lines)
            for line in lines:
                name, seconds, marks = json.loads(line)
                out[name] = seconds, marks
    return out
