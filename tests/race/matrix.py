"""The matrix: every operation, and every pair of them, on every kind of callout, against softclock and the interrupt.

A *cell* is one scenario of ``history.race``: a callout that is armed, one or two threads that operate on it, a callback
that may operate on it as well. Each cell is searched to the end with at most 3 preemptions where that is possible in a
number of schedules that a night can afford, else with 2 or 1: the table says which.

``python -m tests.race.matrix --help`` is the command. It begins with what is quick, goes deeper from there, and may be
ended at any time: what was searched is kept in ``certificates.csv``, beside this file, and it goes on from there. From
that file the page of the manual is made. ``test_matrix.py`` searches the core of the matrix, and some cells of the file
again.
"""

from __future__ import annotations

import argparse
import ast
import csv
import hashlib
import platform
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from importlib import metadata
from itertools import combinations
from pathlib import Path
from typing import Final

from callout.explore import Certificate, Violation, explore
from callout.testing import VirtualSMP
from tests.race.history import (
    ARMING,
    ASYNC_DRAIN,
    BARE_ELSEWHERE,
    BARE_RESET,
    BARE_STOP,
    BARRIER,
    CLOSING,
    DIRECT,
    DRAIN,
    DRAIN_ASYNC,
    ELSEWHERE,
    GIANT,
    HELD_DRAIN,
    KINDS,
    MPSAFE,
    MUTEX,
    OPS,
    RESET,
    SCHEDULE,
    SHARED,
    SPIN,
    STOP,
    TERMINATE,
    TRYLOCK,
    UNLOCKED,
    race,
)

ROOT: Final = Path(__file__).parents[2]
FILE: Final = Path(__file__).with_name("certificates.csv")
PAGE: Final = ROOT / "docs" / "engine-matrix.md"
MOST: Final = 3  # preemptions
GROWTH: Final = 8  # so many times as many schedules, about, with one preemption more

# What the first run of the callback does, and the operation that this is.
REARMS: Final = "callback re-arms"
MOVES: Final = "callback re-arms elsewhere"
STOPS: Final = "callback stops"
DRAINS: Final = "callback drains"
RAISES: Final = "callback raises"
CALLBACKS: Final = {REARMS: RESET, MOVES: ELSEWHERE, STOPS: STOP, DRAINS: DRAIN_ASYNC, RAISES: ""}
# The same with another lock held than usual.
VARIANTS: Final = (BARE_RESET, BARE_ELSEWHERE, BARE_STOP, HELD_DRAIN)
EVERY: Final = (*OPS, *CALLBACKS)

LIKE_MUTEX: Final = (GIANT, UNLOCKED, TRYLOCK)  # the core has fewer pairs of them
BOTH_WAYS: Final = (MPSAFE, MUTEX)  # explored with and without the short paths
HAVE_SHORT: Final = (RESET, BARE_RESET, STOP, BARE_STOP)  # the operations that have a short path

Row = tuple[str, ...]


def rows() -> list[Row]:
    """Return the rows of the matrix: one operation, two, or three."""
    alone: list[Row] = [(op,) for op in (*EVERY, *VARIANTS)]
    twice: list[Row] = [(op, op) for op in EVERY]
    pairs: list[Row] = list(combinations(EVERY, 2))
    triples: list[Row] = [
        (RESET, STOP, MOVES),
        (RESET, DRAIN, REARMS),
        (ELSEWHERE, STOP, MOVES),
        (ELSEWHERE, DRAIN_ASYNC, REARMS),
        (DRAIN, DRAIN_ASYNC, MOVES),
        (SCHEDULE, TERMINATE, REARMS),
        (RESET, BARRIER, REARMS),
        (RESET, ASYNC_DRAIN, RAISES),
    ]
    giant: list[Row] = [(HELD_DRAIN, op) for op in (RESET, ELSEWHERE, BARE_RESET)]
    return [*alone, *twice, *pairs, *triples, *giant]


NO_LOCK: Final = "the callout has no lock"


def refusal(row: Row, kind: str) -> str:
    """Return why there is no such scenario; "" if there is one."""
    locked = kind not in (MPSAFE, DIRECT)
    acts = [each for each in row if each in CALLBACKS]
    if row == (CLOSING, CLOSING):
        return "a system is closed once"
    if len(acts) > 1 and RAISES not in acts:
        return "a callback does one of them; the other is a scenario of its own"
    if row == (RAISES, RAISES):
        return "one run raises once"
    if kind == SHARED and (STOPS in row or DRAINS in row):
        return "LockNotHeldError: the callback has the lock for reading, and to stop needs it for writing"
    if not locked and any(each in VARIANTS for each in row):
        return NO_LOCK
    if BARE_STOP in row and kind != GIANT:
        return "LockNotHeldError: to stop needs the callout's lock"
    if HELD_DRAIN in row and kind != GIANT:
        return "LockHeldError: nobody may sleep with a lock held, but for Giant, which is released meanwhile"
    return ""


@dataclass(frozen=True)
class Cell:
    """One scenario of the matrix."""

    row: Row
    kind: str
    way: str = "short"

    @property
    def name(self) -> str:
        """What it is called in the file and in tests."""
        return f"{' + '.join(self.row)}, {self.kind}, {self.way}"

    @property
    def threads(self) -> tuple[str, ...]:
        """The operations that threads do."""
        return tuple(each for each in self.row if each not in CALLBACKS)

    @property
    def cpus(self) -> int:
        """How many CPUs it has: to close each takes many steps, so one does where nothing moves."""
        return 1 if CLOSING in self.row and ELSEWHERE not in self.row and MOVES not in self.row else 2

    def guess(self) -> int:
        """Return about how many schedules it has with one preemption."""
        many: int = 6 ** len(self.threads) + 4 * (len(self.row) - len(self.threads))
        return many * (3 if ELSEWHERE in self.row else 1) * (8 * self.cpus if CLOSING in self.row else 1)

    def scenario(self) -> Callable[[VirtualSMP], str]:
        """Return it."""
        acts = [each for each in self.row if each in CALLBACKS]
        callback = next((CALLBACKS[act] for act in acts if CALLBACKS[act]), "")
        return race(self.kind, *self.threads, callback=callback, raises=RAISES in acts)

    def explore(
        self, bound: int, *, schedules: int | None = None, reduce: bool = True, shrink: bool = True
    ) -> Certificate:
        """Search it."""
        return explore(
            self.scenario(),
            cpus=self.cpus,
            bound=bound,
            schedules=schedules,
            reduce=reduce,
            shrink=shrink,
            cells_only=reduce,
            short_paths=self.way == "short",
        )


def cells() -> list[Cell]:
    """Return every cell that there is, in the order of the table."""
    out = []
    for row in rows():
        for kind in KINDS:
            if refusal(row, kind):
                continue
            out.append(Cell(row, kind))
            ops = [CALLBACKS.get(each, each) for each in row]
            if kind in BOTH_WAYS and any(op in HAVE_SHORT for op in ops):
                out.append(Cell(row, kind, "long"))
    return out


def core() -> list[tuple[Cell, int]]:
    """Return the cells that CI searches, each with how many preemptions."""
    out = []
    for cell in cells():
        if CLOSING in cell.row:
            if cell.kind in BOTH_WAYS and cell.way == "short" and cell.cpus == 1:
                out.append((cell, 1))
        elif len(cell.threads) < 2:
            # One that tries its lock is refused again and again, and has many schedules.
            bound = (3 if len(cell.row) == 1 else 2) - (cell.kind == TRYLOCK)
            out.append((cell, bound))
        elif _is_short(cell):
            out.append((cell, 1))
    return out


def _is_short(cell: Cell) -> bool:
    """Whether two threads can be searched in the time of CI: what arms has by far the most schedules."""
    arming = sum(op in ARMING for op in cell.threads)
    if cell.kind in (MPSAFE, MUTEX):
        return cell.way == "short" or not (arming or len(cell.row) > 2)
    return len(cell.row) == 2 and arming < (1 if cell.kind in LIKE_MUTEX else 2)


# -- the certificates --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """A line of the file: how a cell was searched, to the end, with the most preemptions that were possible."""

    name: str
    bound: int
    schedules: int
    steps: int
    longest: int
    states: int
    core: int  # schedules with as many preemptions as the core has; 0 if the cell is not in the core
    seconds: float  # of the processor

    @property
    def least(self) -> int:
        """How many schedules it has in the core, at least."""
        return self.core or self.schedules

    @property
    def text(self) -> str:
        """What the table says of it."""
        return f"{self.schedules:,}" if self.bound == MOST else f"{self.schedules:,} ({self.bound})"


def sources() -> str:
    """Return what changes when the engine, the search or the scenarios do, but for their words."""
    rooms = [ROOT / "callout" / room for room in ("_core", "_locks", "_worlds/virtual", "explore")]
    files = [file for room in rooms for file in room.glob("*.py")]
    digest = hashlib.sha256()
    for file in (*sorted(files), Path(__file__).with_name("history.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                node.body = [each for each in node.body if not _is_words(each)]
        digest.update(ast.unparse(tree).encode())
    return digest.hexdigest()[:16]


def _is_words(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


NUMBERS: Final = ("bound", "schedules", "steps", "longest", "states", "core")


class Certificates:
    """The file."""

    def __init__(self, file: Path = FILE) -> None:
        self.file = file
        self.about: dict[str, str] = {}
        self.lines: dict[str, Line] = {}
        if file.exists():
            with file.open(encoding="utf-8", newline="") as text:
                self.about = dict(part.split("=", 1) for part in next(text).removeprefix("# ").strip().split("; "))
                for row in csv.DictReader(text):
                    numbers = {name: int(row[name]) for name in NUMBERS}
                    self.lines[row["name"]] = Line(row["name"], **numbers, seconds=float(row["seconds"]))

    def begin(self) -> None:
        """Note what is searched, and when. What was searched of another engine counts no more."""
        if self.about.get("sources") != sources():
            self.lines = {}
        git = ("git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12")
        self.about = {
            "version": metadata.version("callout"),
            "commit": subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip() or "none",
            "sources": sources(),
            "date": datetime.now(UTC).date().isoformat(),
            "python": f"{platform.python_implementation()} {platform.python_version()}",
        }

    def write(self) -> None:
        """Write the file anew."""
        part = self.file.with_suffix(".part")
        with part.open("w", encoding="utf-8", newline="") as text:
            text.write("# " + "; ".join(f"{key}={value}" for key, value in self.about.items()) + "\n")
            out = csv.DictWriter(text, [field.name for field in fields(Line)], lineterminator="\n")
            out.writeheader()
            out.writerows(asdict(self.lines[cell.name]) for cell in cells() if cell.name in self.lines)
        part.rename(self.file)


def search(
    chosen: Iterable[Cell], kept: Certificates, *, limit: int, minutes: float, core_only: bool = False
) -> list[str]:
    """Search the cells, the likely quick ones first, but none that is likely to have more schedules than *limit*.

    Return the names of those in which something was found.
    """
    wrong: list[str] = []
    of_core = dict(core())
    end = time.monotonic() + minutes * 60
    likely = {cell: cell.guess() for cell in chosen}
    for cell in likely:
        line = kept.lines.get(cell.name)
        if line is not None:
            likely[cell] = line.schedules * GROWTH
    done = 0
    saved = time.monotonic()
    while True:
        open_ = [
            (many, cell.name, cell)
            for cell, many in likely.items()
            if many <= limit and _next(cell, kept) <= (of_core.get(cell, 0) if core_only else MOST)
        ]
        if not open_ or time.monotonic() > end:
            break
        _, name, cell = min(open_)
        line = kept.lines.get(name)
        bound = _next(cell, kept)
        begun = time.process_time()
        try:
            certificate = cell.explore(bound, schedules=2 * limit)
        except Violation as violation:
            say(f"{name}, {bound} preemptions: {violation}\n{violation.__cause__!r}")
            wrong.append(name)
            del likely[cell]
            continue
        seconds = time.process_time() - begun
        if certificate.exhausted:
            kept.lines[name] = Line(
                name,
                bound,
                certificate.schedules,
                certificate.steps,
                certificate.longest,
                len(certificate.final_states),
                certificate.schedules if bound == of_core.get(cell) else line.core if line is not None else 0,
                round(seconds, 2),
            )
            likely[cell] = certificate.schedules * GROWTH
        else:
            likely[cell] = limit + 1
        done += 1
        say(
            f"{done} ({len(open_)} are left to be looked at): {name}, {bound} preemptions: {certificate.schedules} "
            f"schedules in {seconds:.1f} s{'' if certificate.exhausted else ', not exhausted'}"
        )
        if time.monotonic() > saved + 10:
            kept.write()
            saved = time.monotonic()
    kept.write()
    return wrong


def _next(cell: Cell, kept: Certificates) -> int:
    line = kept.lines.get(cell.name)
    return 1 if line is None else line.bound + 1


# -- the page ----------------------------------------------------------------------------------------------------------

HEADINGS: Final = {DIRECT: "direct, no lock", SPIN: "direct, spin mutex"}


def page(kept: Certificates) -> str:
    """Return the page of the manual."""
    lines = kept.lines
    reasons = list(dict.fromkeys(reason for row in rows() for kind in KINDS if (reason := refusal(row, kind))))
    mark = {reason: chr(ord("a") + at) for at, reason in enumerate(reasons)}
    out = [
        "# The engine under every schedule: the matrix",
        "",
        "This page is made by `python -m tests.race.matrix --page` from `tests/race/certificates.csv`.",
        "",
        *_totals(kept),
        "",
        "## How to read it",
        "",
        *READING,
        "",
        "## The table",
        "",
        f"| operations | {' | '.join(HEADINGS.get(kind, kind) for kind in KINDS)} |",
        f"| --- |{' ---: |' * len(KINDS)}",
    ]
    for row in rows():
        texts = []
        for kind in KINDS:
            reason = refusal(row, kind)
            names = [Cell(row, kind, way).name for way in ("short", "long")]
            found = [lines[name].text for name in names if name in lines]
            texts.append(f"no ({mark[reason]})" if reason else " / ".join(found) or "not run")
        out.append(f"| {' + '.join(row)} | {' | '.join(texts)} |")
    out += ["", "Not allowed, and why:", ""]
    out += [f"- ({mark[reason]}) {reason}." for reason in reasons]
    out += ["", "## What it does not cover", "", *BEYOND, ""]
    return "\n".join(out)


def _totals(kept: Certificates) -> Iterator[str]:
    about, lines = kept.about, kept.lines.values()
    bounds = Counter(line.bound for line in lines)
    yield (
        f"{len(lines)} scenarios were searched, each to the end, and nothing was found: "
        f"{sum(line.schedules for line in lines):,} schedules, {sum(line.steps for line in lines):,} switch points, "
        f"{sum(line.states for line in lines):,} different final states, in {sum(line.seconds for line in lines):,.0f} "
        "seconds of one processor core."
    )
    yield ""
    yield "| preemptions at most | scenarios |"
    yield "| ---: | ---: |"
    for bound in sorted(bounds, reverse=True):
        yield f"| {bound} | {bounds[bound]:,} |"
    yield ""
    if missing := len(cells()) - len(lines):
        yield f"{missing} more scenarios of the list have not been searched yet: `not run` in the table."
        yield ""
    yield f"Run on {about['date']} with {about['python']}, version {about['version']}, commit {about['commit']}."


READING: Final = """\
Each row is one operation, or two: `reset + stop` is one thread that resets a callout, and another that stops it. What a
callback does (`callback re-arms`) its first run does. The callout was armed before the race, so the clock interrupt and
softclock race, too. Each column is a kind of callout. A cell has the number of schedules that were run: all with
at most 3 preemptions, but for equivalent ones. `608 (2)` has all with at most 2: there were too many with 3.
`2,590 / 1,676` is the short path and the long way, where there are two and both are explored: a reset or a stop of
`mpsafe` and `mutex`.

What is checked in every schedule, besides what `explore()` checks by itself
([testing](testing.md#what-is-left-out)):

- the results of the calls, the runs and the completions are those of some order of the calls, each one step;
- each run is of an arming, no arming runs twice, and what was armed either ran or was removed, as often as the results
  say; whether the callout is active in the end;
- nothing of before runs after a drain has returned or a completion was called; nothing at all after a termination or
  after the system was closed;
- a promised completion is called exactly once, one that was not promised never;
- the callout's lock is held in its callback as declared, and in no completion;
- the records of a CPU are in order at every release of its lock (`callout/_core/invariants.py`);
- in the end nothing is pending, queued or running, and no lock is held.""".splitlines()

BEYOND: Final = """\
- More than 3 preemptions, or as many as the cell says; more than two threads; more than one callout. The other modules
  of `tests/race` have scenarios with more callouts and more CPUs.
- Of the kinds besides `mpsafe` and `mutex`, the long way of reset and stop. Direct callouts have no other way, and for
  the rest it does not look at the kind of the lock.
- A callout that another thread initialises anew meanwhile: `tests/race/test_engine.py` has that.
- What the explorer itself does not model: weak memory, the interpreter's own switches, trio's scheduler.
""".splitlines()


# -- the command -------------------------------------------------------------------------------------------------------


def say(text: str) -> None:
    """Print at once: a run is long."""
    print(text, flush=True)


def main() -> int:
    """Do what the command line says; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.race.matrix", description="Every pair of operations, under every schedule."
    )
    parser.add_argument("--list", action="store_true", help="print the name of every cell")
    parser.add_argument("--page", action="store_true", help="write the page of the manual, and run nothing")
    parser.add_argument("--core", action="store_true", help="search the core only, and no deeper than CI does")
    parser.add_argument("--only", default="", metavar="TEXT", help="cells with TEXT in their name")
    parser.add_argument("--anew", action="store_true", help="forget what was searched before")
    parser.add_argument(
        "--limit", type=int, default=2000, metavar="N", help="search no cell that has likely more schedules (2000)"
    )
    parser.add_argument("--minutes", type=float, default=1440, metavar="M", help="end after so many minutes")
    args = parser.parse_args()
    chosen = [cell for cell in cells() if args.only in cell.name]
    if args.list:
        say("\n".join(cell.name for cell in chosen))
        return 0
    kept = Certificates()
    if not args.page:
        if args.anew:
            kept.lines = {}
        kept.begin()
        if wrong := search(chosen, kept, limit=args.limit, minutes=args.minutes, core_only=args.core):
            say("\n".join(f"something was found in {name}" for name in wrong))
            return 1
    PAGE.write_text(page(kept), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
