"""The command: ``python -m tests.mutants``; see CONTRIBUTING.md."""

from __future__ import annotations

import argparse
import fnmatch
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from tests.mutants import mapping, operators, runner
from tests.mutants.killers import Killer, recordings
from tests.mutants.session import FOLDERS, with_tests


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--map", action="store_true")
    parser.add_argument("--run", action="store_true")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--only", default="*")
    parser.add_argument("--budget", type=float, default=20)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folders", nargs="*", default=list(FOLDERS))
    parser.add_argument("--out", type=Path, default=Path(".mutants"))
    parser.add_argument("--name", default="all")
    args = parser.parse_args()
    args.out.mkdir(exist_ok=True)
    if args.list:
        for m in operators.all_mutations():
            print(m.name)
    folders = [f for f in args.folders if f != "recordings"]
    first: list[Killer] = list(recordings()) if "recordings" in args.folders else []
    say = lambda text: print(text, flush=True)
    if args.map:
        file = args.out / f"map-{args.name}.jsonl"
        if folders:
            with_tests(folders, lambda tests: mapping.record([*first, *tests], file, say))
        else:
            mapping.record(first, file, say)
    if args.run:
        reach = mapping.read(sorted(args.out.glob("map-*.jsonl")))
        file = args.out / f"results-{args.name}.jsonl"
        done = {}
        for f in sorted(args.out.glob("results-*.jsonl")):
            for line in f.read_text().splitlines():
                row = json.loads(line)
                done[row["name"]] = row
        todo = [m for m in operators.all_mutations()
                if args.only in m.name or fnmatch.fnmatch(m.name, args.only)]
        if not args.again:
            todo = [m for m in todo if m.name not in done or done[m.name]["kind"] in ("survived", "unreached")]
        print(len(todo), "mutants", flush=True)
        def work(tests: Iterable[Killer]) -> None:
            killers = {k.name: k for k in [*first, *tests]}
            with file.open("a") as out:
                def found(result: runner.Result) -> None:
                    out.write(json.dumps(asdict(result)) + "\n")
                    out.flush()
                    if result.kind in ("survived", "unreached", "crash", "same"):
                        say(f"{result.kind}: {result.name}   {result.why} ({result.tried}, {result.seconds})")
                runner.run(todo, killers, reach, workers=args.workers, budget=args.budget, hints={}, found=found)
        if folders:
            with_tests(folders, work)
        else:
            work(())


main()
