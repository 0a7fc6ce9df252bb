"""The command: ``python -m tests.mutants``; CONTRIBUTING.md says when to use which option."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from tests.mutants import found, mapping, operators, races, runner
from tests.mutants.killers import FOR, Killer, explorations, recordings, searched
from tests.mutants.operators import Mutation
from tests.mutants.session import FOLDERS, with_tests
from tests.mutants.table import NOT_KILLED, Table, equivalent

RECORDINGS = "recordings"
MATRIX = "matrix"
EXPLORATIONS = "explorations"
RACES = "tests/race"  # where they are


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    out = argparse.ArgumentParser(
        prog="python -m tests.mutants", description="Mutants of the engine, and their killers."
    )
    what = out.add_mutually_exclusive_group(required=True)
    what.add_argument("--list", action="store_true", help="print the name of every mutant")
    what.add_argument("--run", action="store_true", help="run them; exit 1 if one survives")
    what.add_argument("--races", action="store_true", help="run those that are races against every search")
    what.add_argument("--table", action="store_true", help="print what killed which, the last time")
    what.add_argument(
        "--map",
        action="store_true",
        help="record what executes which statement, of killers that are new; the others do so if the engine is new",
    )
    out.add_argument("--page", action="store_true", help="with --races: write their page anew, and run nothing")
    out.add_argument(
        "--again",
        action="store_true",
        help="with --races: have each found by the search that has found it, and no other; exit 1 if one is not",
    )
    out.add_argument("--only", default="", metavar="TEXT", help="those with TEXT in their name")
    out.add_argument("--left", action="store_true", help="those that nothing has killed yet")
    out.add_argument("--budget", type=float, default=60, metavar="S", help="seconds of tests for a mutant (60)")
    out.add_argument("--workers", type=int, default=2, metavar="N", help="so many at a time (2)")
    out.add_argument(
        "--killers",
        nargs="+",
        default=[RECORDINGS, *FOLDERS],
        metavar="WHAT",
        help="recordings, matrix, explorations, and folders of tests",
    )
    out.add_argument(
        "--out", type=Path, default=Path(".mutants"), metavar="DIR", help="where the tables are (.mutants)"
    )
    return out


def main() -> int:
    """Do what the command line says; return the exit status."""
    args = parser().parse_args()
    every = races.all_races() if args.races else operators.all_mutations()
    chosen = [mutation for mutation in every if args.only in mutation.name]
    if args.races:
        args.killers = [MATRIX, EXPLORATIONS]
        args.out /= "races"
    if args.list:
        print("\n".join(mutation.name for mutation in chosen))
        return 0
    if args.races and args.again:
        return again(chosen, args)
    args.out.mkdir(exist_ok=True, parents=True)
    table = Table(args.out / "table.jsonl")
    if args.races and args.page:
        found.write(found.rows_of(every, table.rows))
        return 0
    if args.table:
        print("\n".join(table.markdown(chosen)))
        return 0
    if args.map:
        for what in args.killers:
            work = partial(mapping.record, file=mapping.file_of(args.out, what), say=say)
            with_killers([what], work)
        return 0
    for what in args.killers:
        if not mapping.is_good(mapping.file_of(args.out, what)):
            say(f"recording what {what} executes")
            # In a process of its own: its marks and its threads end with it.
            command = [sys.executable, "-m", "tests.mutants", "--map", "--killers", what, "--out", str(args.out)]
            subprocess.run(command, check=True)
    reasons = equivalent()
    known = found.killers() if args.races else {}
    todo = [
        m for m in chosen if m.name not in reasons and not (args.left and (m.name in known or table.has_killed(m.name)))
    ]
    excused = found.reasons()
    # First what was not run at all; last what a search will hardly find.
    todo.sort(key=lambda m: (bool(found.reason_of(m.name, excused)), m.name in table.rows))
    own = {m.name: FOR[m.source] for m in chosen if m.source in FOR}
    hints = own | known | table.hints()
    with_killers(args.killers, lambda killers: run(todo, killers, table, hints, args))
    if args.races:
        rows = found.rows_of(every, table.rows)
        found.write(rows)
        holes = found.holes(rows)
        say("\n".join([found.summary(rows), *(f"not found, without a reason: {name}" for name in holes)]))
        return 1 if holes else 0
    left = [m.name for m in chosen if m.name not in reasons and not table.has_killed(m.name)]
    say("\n".join([*table.summary(chosen), *(f"survives: {name}" for name in left)]))
    return 1 if left else 0


def again(chosen: Sequence[Mutation], args: argparse.Namespace) -> int:
    """Look for each mutant that was found with the search that has found it; return the exit status.

    A row is kept for its mutant's name; but what that means may change with the engine, and what the search reaches.
    That all were found is noted, for the test that asks for this after a change.
    """
    known = found.killers()
    todo = [mutation for mutation in chosen if mutation.name in known]
    missed: list[str] = []

    def hear(result: runner.Result) -> None:
        if result.kind in NOT_KILLED:
            missed.append(result.name)
            say(f"{result.kind}: {result.name}\n    {known[result.name]}")

    def look(killers: Iterable[Killer]) -> None:
        by_name = {killer.name: killer for killer in killers}
        runner.run(todo, by_name, {}, workers=args.workers, budget=0, hints=known, found=hear)

    with_killers(args.killers, look)
    say(f"{len(todo) - len(missed)} of {len(todo)} mutants were found again")
    if missed:
        return 1
    if len(todo) == len(known):
        found.AGAIN.write_text(found.state({mutation.module for mutation in chosen}), encoding="utf-8")
    return 0


def run(
    todo: Sequence[Mutation],
    killers: Iterable[Killer],
    table: Table,
    hints: Mapping[str, str],
    args: argparse.Namespace,
) -> None:
    """Run the mutants, and keep what became of them."""
    files = [mapping.file_of(args.out, what) for what in args.killers]

    def keep(result: runner.Result) -> None:
        table.add(result)
        if not table.has_killed(result.name):
            say(f"{result.kind}: {result.name} {result.why}")

    say(f"{len(todo)} mutants")
    runner.run(
        todo,
        {killer.name: killer for killer in killers},
        mapping.read(files),
        workers=args.workers,
        budget=args.budget,
        hints=hints,
        found=keep,
    )


def with_killers(which: Sequence[str], work: runner.Work) -> None:
    """Have *work* done with the killers that are named."""
    first: list[Killer] = [*recordings()] if RECORDINGS in which else []
    if MATRIX in which:
        first += searched()
    folders = [what for what in which if what not in (RECORDINGS, MATRIX, EXPLORATIONS)]
    if EXPLORATIONS in which:
        with_tests([RACES], lambda tests: work([*first, *explorations(tests)]))
    elif folders:
        with_tests(folders, lambda tests: work([*first, *tests]))
    else:
        work(first)


def say(text: str) -> None:
    """Print at once: a run is long."""
    print(text, flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # into head, for example
    raise SystemExit(main())
