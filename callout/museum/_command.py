"""The command ``callout explore``: a walk through the museum."""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from pathlib import Path
from typing import Final

from .. import ArgumentTypeError, ArgumentValueError, TraceError
from .._files import try_writing
from .._terminal import BAD, GOOD, INTERRUPTED, STRESSED, Progress, say
from ..explore import Certificate, Violation, explore, incident, replay
from ..explore._explore import MAX_BOUND
from ..explore._report import Names
from ..explore._schedule import Setting, name_of, parse
from . import EXHIBITS, Exhibit, Variant

BOUND: Final = 3  # with as many preemptions the remedies are explored to the end
DEPARTURES: Final = 2  # from a recorded order, unless told otherwise
WIDTH: Final = 100
DESCRIPTION: Final = (
    "Explore a race of kernel timers, a small executable model: the program that has it, in every schedule until one "
    "goes wrong, or with --fixed its remedies, in all of them. Exit status: 0 if every search ended with nothing "
    "found, 1 if a violation was found, 2 for wrong usage, 130 after Ctrl-C. With --all it is 0 if every race was "
    "found and every remedy is clean, as it should be."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    parser.description = DESCRIPTION
    parser.add_argument("race", nargs="?", metavar="RACE", help="the number of a race, as R0.2; --list has them")
    parser.add_argument("--list", action="store_true", help="list the races and their variants, and explore none")
    parser.add_argument("--all", action="store_true", help="explore every variant of every race, and print a table")
    parser.add_argument("--fixed", action="store_true", help="explore the remedies, with up to 3 preemptions")
    parser.add_argument("--variant", metavar="NAME", help="explore this variant only")
    parser.add_argument("--bound", type=int, metavar="N", help="allow so many preemptions")
    parser.add_argument("--svg", metavar="FILE", help="write the first diagram as a picture, too")
    parser.add_argument("--json", action="store_true", help="print JSON in place of text; not with --replay")
    parser.add_argument("--replay", metavar="STRING", help="run one schedule of a race again, the one of that string")
    parser.add_argument(
        "--trace",
        metavar="FILE",
        help="explore what a trace, written by system.tracing(FILE), ends in: first in the order in which it "
        "happened, then in others that are like it",
    )
    parser.add_argument("--serial", type=int, metavar="N", help="with --trace: what happened to that callout")
    parser.add_argument(
        "--before", type=int, default=0, metavar="N", help="with --trace: begin so many events earlier (default: 0)"
    )
    parser.add_argument("--write", metavar="FILE", help="with --trace: write the scenario, and a test of it, into FILE")


def run(args: argparse.Namespace) -> int:
    """Carry out what was asked for; return the exit status."""
    of_race = args.fixed or args.variant is not None
    of_trace = args.serial is not None or args.before or args.write is not None
    of_both = args.bound is not None or args.svg is not None
    asked = sum((bool(args.list), bool(args.all), *(x is not None for x in (args.race, args.replay, args.trace))))
    misplaced = (of_race and args.race is None) or (of_trace and args.trace is None)
    if asked != 1 or misplaced or (of_both and args.race is None and args.trace is None):
        return _wrong(
            "give one of these: a race, as in  callout explore R0.2  , for which there are --fixed, --variant, --bound "
            "and --svg; or --trace FILE, with --serial, --before, --bound, --svg and --write; or --list; or --all; or "
            "--replay, whose string names its race"
        )
    if args.svg is not None and args.fixed:
        return _wrong("--svg is a picture of what goes wrong, and with --fixed nothing does")
    if args.bound is not None and not 0 <= args.bound <= MAX_BOUND:
        return _wrong(f"--bound must be a number from 0 up, and at most {MAX_BOUND}, not {args.bound}")
    if args.json and args.replay is not None:
        return _wrong("--json does not apply to --replay, which prints what goes wrong, or nothing")
    for option, file in (("--svg", args.svg), ("--write", args.write)):
        if file is not None:
            try:
                try_writing(Path(file))
            except OSError as error:
                return _unwritable(option, Path(file), error)
    if args.list:
        return _list(in_json=args.json)
    if args.all:
        return _table(in_json=args.json)
    if args.replay is not None:
        return _replay(args.replay)
    if args.trace is not None:
        return _incident(args)
    exhibit = EXHIBITS.get(args.race)
    if exhibit is None:
        return _wrong(f"there is no race {args.race!r}; callout explore --list  has those that there are")
    variants = exhibit.fixed if args.fixed else exhibit.buggy
    if args.variant is not None:
        variants = tuple(variant for variant in exhibit.variants if variant.name == args.variant)
        if not variants or (args.fixed and variants[0].breaks):
            names = ", ".join(variant.name for variant in (exhibit.fixed if args.fixed else exhibit.variants))
            return _wrong(f"{exhibit.number} has no such variant {args.variant!r}; it has {names}")
    if not variants:
        return _wrong(f"{exhibit.number} has no {'remedy' if args.fixed else 'program that goes wrong'}")
    svg = None if args.svg is None else Path(args.svg)
    return _show(exhibit, variants, args.bound, svg, in_json=args.json)


def _wrong(text: str) -> int:
    print(f"callout explore: {text}", file=sys.stderr)
    return 2


def _unwritable(option: str, file: Path, error: OSError) -> int:
    return _wrong(f"{option}: {str(file)!r} cannot be written: {error.strerror}")


def _interrupted(error: KeyboardInterrupt, done: int, of: int) -> int:
    """Say how far it came; return the exit status."""
    notes = "".join(f"; {note}" for note in getattr(error, "__notes__", []))
    print(f"callout explore: interrupted after {done} of {of} variants{notes}", file=sys.stderr)
    return INTERRUPTED


def _list(*, in_json: bool) -> int:
    if in_json:
        _print_json(
            [
                {
                    "race": exhibit.number,
                    "title": exhibit.title,
                    "variants": [
                        {"variant": each.name, "goes wrong": bool(each.breaks), "says": each.says}
                        for each in exhibit.variants
                    ],
                }
                for exhibit in EXHIBITS.values()
            ]
        )
        return 0
    for exhibit in EXHIBITS.values():
        say(f"{exhibit.number:6}{exhibit.title}", STRESSED)
        for variant in exhibit.variants:
            say(f"        {'goes wrong' if variant.breaks else 'clean':12}{variant.name}: {variant.says}")
    return 0


def _print_json(what: object) -> None:
    print(json.dumps(what, indent=1))


def _search(variant: Variant, bound: int, *, shrink: bool) -> Certificate | Violation:
    """Explore a variant; return how that has ended."""
    try:
        return explore(variant.scenario, cpus=variant.cpus, bound=bound, cells_only=variant.cells_only, shrink=shrink)
    except Violation as violation:
        return violation


def _replay(schedule: str) -> int:
    """Run one schedule of the variant that it names."""
    variants = {name_of(variant.scenario): variant for exhibit in EXHIBITS.values() for variant in exhibit.variants}
    try:
        setting, _ = parse(schedule)
        variant = variants.get(setting.name)
        if variant is None:
            return _wrong(
                f"--replay: there is no race {setting.name!r}; callout explore --list  has those that there are"
            )
        setting.check(Setting(variant.cpus, 1000, short_paths=True, name=setting.name))  # as explore() has them
        replay(variant.scenario, schedule)
    except (ArgumentTypeError, ArgumentValueError) as error:
        return _wrong(f"--{error}")
    except Exception as error:
        print(Names()(f"{type(error).__name__}: {error}"))
        return 1
    print("nothing went wrong")
    return 0


def _as_json(exhibit: Exhibit, variant: Variant, bound: int, outcome: Certificate | Violation) -> dict[str, object]:
    """Return what became of the search of a race."""
    return {
        "race": exhibit.number,
        "variant": variant.name,
        "goes wrong": bool(variant.breaks),
        "preemptions": bound,
        **_outcome_as_json(outcome),
    }


def _outcome_as_json(outcome: Certificate | Violation) -> dict[str, object]:
    """Return what became of one search."""
    return {
        "schedules": outcome.number if isinstance(outcome, Violation) else outcome.schedules,
        "exhausted": not isinstance(outcome, Violation) and outcome.exhausted,
        "found": str(outcome.__cause__).partition("\n")[0] if isinstance(outcome, Violation) else None,
        "schedule": outcome.schedule if isinstance(outcome, Violation) else None,
    }


def _incident(args: argparse.Namespace) -> int:
    """Explore what a trace ends in."""
    if args.svg is not None and args.svg == args.write:
        return _wrong("--svg and --write name the same file")
    try:
        case = incident(args.trace, serial=args.serial, before=args.before)
    except OSError as error:
        return _wrong(f"--trace: {args.trace!r} cannot be read: {error.strerror}")
    except (TraceError, ArgumentTypeError, ArgumentValueError) as error:
        return _wrong(f"--trace: {error}")
    if not args.json:
        say(case.title, STRESSED)
        say("")
    outcome: Certificate | Violation
    try:
        outcome = case.explore(bound=DEPARTURES if args.bound is None else args.bound)
    except Violation as violation:
        outcome = violation
    except KeyboardInterrupt as error:
        return _interrupted(error, 0, 1)
    found = outcome if isinstance(outcome, Violation) else None
    texts = {
        ("--svg", args.svg): "" if found is None else found.svg(),
        ("--write", args.write): case.as_test(found),
    }
    written = []
    for (option, name), text in texts.items():
        if name is not None and text:
            file = Path(name)
            try:
                file.write_text(text, "utf-8")
            except OSError as error:
                return _unwritable(option, file, error)
            written.append(file)
    if args.json:
        _print_json({"incident": case.title, "in order": case.in_order, **_outcome_as_json(outcome)})
    else:
        say(str(outcome))
        for note in getattr(found, "__notes__", ()):
            say(note)
        for file in written:
            say(f"\nwritten: {file}")
    return 0 if found is None else 1


def _show(
    exhibit: Exhibit, variants: tuple[Variant, ...], bound: int | None, svg: Path | None, *, in_json: bool
) -> int:
    status = 0
    results: list[dict[str, object]] = []
    if not in_json:
        say(f"{exhibit.number}  {exhibit.title}", STRESSED)
        say(f"\n{textwrap.fill(exhibit.story, WIDTH)}\n")
        for source in exhibit.sources:
            say(f"Source: {source}")
    try:
        for variant in variants:
            if not in_json:
                say("")
                say(f"{variant.name}: {variant.says}", STRESSED)
                say("")
            up_to = (variant.preemptions if variant.breaks else BOUND) if bound is None else bound
            outcome = _search(variant, up_to, shrink=True)
            results.append(_as_json(exhibit, variant, up_to, outcome))
            if not in_json:
                say(str(outcome))
            if isinstance(outcome, Violation):
                status = 1
                if svg is not None:
                    try:
                        svg.write_text(outcome.svg(), "utf-8")
                    except OSError as error:
                        return _unwritable("--svg", svg, error)
                    if not in_json:
                        say(f"\nwritten: {svg}")
                    svg = None  # the first one's
    except KeyboardInterrupt as error:
        status = _interrupted(error, len(results), len(variants))
    if in_json:
        _print_json(results)
    return status


def _table(*, in_json: bool) -> int:
    status = 0
    results: list[dict[str, object]] = []
    all_of_them = [(exhibit, variant) for exhibit in EXHIBITS.values() for variant in exhibit.variants]
    if not in_json:
        say(f"{'race':7}{'variant':30}{'preemptions':13}{'schedules':>9}  what was found", STRESSED)
    with Progress(len(all_of_them)) as progress:
        try:
            for exhibit, variant in all_of_them:
                progress.show(len(results), f"{len(results)}/{len(all_of_them)}; {exhibit.number} {variant.name}")
                bound = variant.preemptions if variant.breaks else BOUND
                outcome = _search(variant, bound, shrink=False)
                result = _as_json(exhibit, variant, bound, outcome)
                results.append(result)
                text, right = _verdict(variant, outcome)
                result["as expected"] = right
                if not right:
                    status = 1
                if not in_json:
                    progress.clear()
                    line = f"{exhibit.number:7}{variant.name:30}{bound:<13}{result['schedules']:>9}  {text}"
                    say(line, GOOD if right else BAD)
        except KeyboardInterrupt as error:
            progress.clear()
            status = _interrupted(error, len(results), len(all_of_them))
    if in_json:
        _print_json(results)
    return status


def _verdict(variant: Variant, outcome: Certificate | Violation) -> tuple[str, bool]:
    """Return what was found in words, and whether that is as it should be."""
    if isinstance(outcome, Violation):
        text = str(outcome.__cause__).partition("\n")[0]
        right = bool(variant.breaks) and variant.breaks in str(outcome.__cause__)
    else:
        text = "nothing, in all" if outcome.exhausted else "nothing, and not all were run"
        right = not variant.breaks and outcome.exhausted
    return (text if right else f"{text}  ** expected: {variant.breaks or 'nothing'}"), right
