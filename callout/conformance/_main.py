"""``callout conformance``: which scenarios, replayed on what, reported how."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import difflib
import importlib
import json
import math
import os
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Final, TextIO

from .._core.errors import CalloutError, TraceError
from .._terminal import BAD, GOOD, INTERRUPTED, Progress, say
from ._builtin import PLATFORMS, builtin
from ._export import as_json, as_junit
from ._format import Scenario, numbered, shipped
from ._judge import Factory, Judge, place_of
from ._report import report, show
from ._schema import OPS
from ._tally import Tally, columns, count_tags
from ._words import text

PASSED: Final = 0
FAILED: Final = 1
UNUSABLE: Final = 2

TIMEOUT: Final = 5.0  # seconds for a scenario; the shipped ones take milliseconds


class UsageError(CalloutError):
    """An option that is wrong, or that does not apply to the others."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments. Defaults are None, so that an option that does not apply can be refused."""
    what = parser.add_argument_group("what is judged")
    what.add_argument(
        "--impl",
        metavar="freebsd|linux|MODULE:FACTORY",
        help="callout(9) or the Linux shim of this package, or a function that makes a callout.conformance.Subsystem "
        "from a Scenario (default: freebsd)",
    )
    what.add_argument(
        "--platform",
        choices=PLATFORMS,
        help="of the built-in ones: deterministic virtual CPUs, or real loops and threads (default: virtual)",
    )
    what.add_argument(
        "--orders",
        type=int,
        metavar="N",
        help="replay under N random orders of who runs next, too, with the seeds 1 to N (platform virtual)",
    )
    what.add_argument(
        "--timeout",
        metavar="SECONDS",
        help=f"for each scenario; what takes longer has failed it (default: {TIMEOUT:g}; none: no limit, and all runs "
        "in the main thread)",
    )
    which = parser.add_argument_group("which scenarios")
    which.add_argument(
        "--api", choices=sorted(OPS), help="which shipped recordings to replay for MODULE:FACTORY (default: freebsd)"
    )
    which.add_argument(
        "--tag", action="append", metavar="T", help="only scenarios with this tag (with all, if repeated)"
    )
    which.add_argument(
        "--not-tag", action="append", metavar="T", help="no scenarios with this tag (with none of them, if repeated)"
    )
    which.add_argument("--id", action="append", metavar="ID", help="only this scenario (these, if repeated)")
    which.add_argument(
        "files", nargs="*", metavar="FILE", type=Path, help="trace files (default: those that come with the package)"
    )
    how = parser.add_argument_group("what is reported")
    how.add_argument("--max-failures", type=int, metavar="N", help="end the run after so many failures")
    how.add_argument(
        "--fail-fast", action="store_const", const=1, dest="max_failures", help="the same as --max-failures 1"
    )
    how.add_argument("--summary", action="store_true", help="print the summary by tag also if nothing failed")
    how.add_argument("--json", action="store_true", help="print JSON in place of text")
    how.add_argument("--junit", metavar="FILE", type=Path, help="write JUnit XML to FILE, too")
    instead = parser.add_argument_group("instead of a replay").add_mutually_exclusive_group()
    instead.add_argument("--list-tags", action="store_true", help="print the tags, with how many scenarios have each")
    instead.add_argument("--show", action="append", metavar="ID", help="print what happens in a scenario")


def run(args: argparse.Namespace) -> int:
    """Do what the arguments say; return the exit status."""
    try:
        _check_options(args)
        if args.show:
            return _show(args)
        if args.list_tags:
            return _list_tags(_select(args, _load(args)))
        return _replay(args)
    except CalloutError as error:
        print(f"callout conformance: {error}", file=sys.stderr)
        return UNUSABLE
    except KeyboardInterrupt:
        print("callout conformance: interrupted", file=sys.stderr)
        return INTERRUPTED


def _timeout(value: str | None) -> float | None:
    if value is None:
        return TIMEOUT
    if value == "none":
        return None
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= threading.TIMEOUT_MAX:  # of NaN nothing is true
        raise UsageError(f"--timeout must be a number of seconds above 0, or none, not {text(value, 30)}")
    return seconds


def _check_options(args: argparse.Namespace) -> None:
    for option, number in (("--orders", args.orders), ("--max-failures", args.max_failures)):
        if number is not None and number < 1:
            raise UsageError(f"{option} must not be negative, nor 0")
    _timeout(args.timeout)
    own = args.impl is not None and ":" in args.impl
    if args.impl is not None and not own and args.impl not in OPS:
        raise UsageError(
            f"--impl {text(args.impl)}: neither a built-in implementation ({', '.join(sorted(OPS))}) nor MODULE:FACTORY"
        )
    looks_only = "--show" if args.show else "--list-tags" if args.list_tags else None
    if looks_only:
        given = {
            "--platform": args.platform,
            "--orders": args.orders,
            "--timeout": args.timeout,
            "--max-failures": args.max_failures,
            "--summary": args.summary,
            "--json": args.json,
            "--junit": args.junit,
        }
        if args.show:
            given |= {"--tag": args.tag, "--not-tag": args.not_tag, "--id": args.id}
        _refuse(given, f"{looks_only} replays nothing" if args.list_tags else "--show names its scenario")
    if own:
        _refuse(
            {"--platform": args.platform, "--orders": args.orders},
            "MODULE:FACTORY decides for itself what it runs on",
        )
    elif args.api and not (looks_only and args.impl is None):
        raise UsageError(f"--api does not apply to a built-in implementation: say --impl {args.api}")
    if args.orders and args.platform == "trio":
        raise UsageError("--orders needs --platform virtual: real threads run in the order in which they run")
    if args.json and args.summary:
        raise UsageError("--summary does not apply to --json, which always has the summary")


def _refuse(given: dict[str, object], why: str) -> None:
    wrong = [name for name, value in given.items() if value]
    if wrong:
        raise UsageError(f"{', '.join(wrong)} does not apply: {why}")


# -- which scenarios --------------------------------------------------------------------------------------------------


def _load(args: argparse.Namespace, *, both: bool = False) -> list[Scenario]:
    """Read and check all files, whole, before anything runs."""
    api = args.impl if args.impl in OPS else args.api
    paths = args.files or [path for each in (sorted(OPS) if both else [api or "freebsd"]) for path in shipped(each)]
    judges = api or (None if args.impl or both or args.list_tags else "freebsd")
    first: dict[str, str] = {}
    found = []
    for path in paths:
        for number, scenario in numbered(path):
            here = f"{path}:{number}"
            if scenario.id in first:
                raise TraceError(f"{here}: the id {scenario.id!r} is also in {first[scenario.id]}")
            if judges is not None and scenario.api != judges:
                option = "--api" if args.impl and args.impl not in OPS else "--impl"
                raise TraceError(f"{here}: {scenario.id} is a scenario of {scenario.api}; use {option} {scenario.api}")
            first[scenario.id] = here
            found.append(scenario)
    if not found:
        raise TraceError("the files hold no scenario")
    return found


def _select(args: argparse.Namespace, scenarios: list[Scenario]) -> list[Scenario]:
    known_tags = count_tags(scenarios)
    wanted, unwanted = args.tag or [], args.not_tag or []
    for tag in (*wanted, *unwanted):
        if tag not in known_tags:
            raise UsageError(f"no scenario has the tag {text(tag)!r}{_similar(tag, known_tags)}; see --list-tags")
    ids = {scenario.id for scenario in scenarios}
    for name in args.id or []:
        if name not in ids:
            raise UsageError(f"there is no scenario {text(name)!r}{_similar(name, ids)}{_elsewhere(args, name)}")
    chosen = [
        scenario
        for scenario in scenarios
        if set(wanted) <= set(scenario.tags)
        and not set(unwanted) & set(scenario.tags)
        and (args.id is None or scenario.id in args.id)
    ]
    if not chosen:
        having = [f"all of the tags {', '.join(wanted)}"] if wanted else []
        having += [f"none of the tags {', '.join(unwanted)}"] if unwanted else []
        having += [f"one of the ids {', '.join(args.id)}"] if args.id else []
        raise UsageError(f"no scenario has {' and '.join(having)}")
    return chosen


def _similar(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name[:100], known, 3, 0.7)
    return f" (did you mean {' or '.join(close)}?)" if close else ""


def _elsewhere(args: argparse.Namespace, name: str) -> str:
    if args.files:
        return ""
    api = args.impl if args.impl in OPS else args.api or "freebsd"
    others = [each for each in OPS if each != api and any(s.id == name for p in shipped(each) for _, s in numbered(p))]
    option = "--api" if args.impl and args.impl not in OPS else "--impl"
    return "".join(f"; it is one of {other}: add {option} {other}" for other in others)


def _list_tags(scenarios: list[Scenario]) -> int:
    for line in columns([(tag, str(count)) for tag, count in count_tags(scenarios).items()] or [("no tags", "0")]):
        print(line)
    return PASSED


def _show(args: argparse.Namespace) -> int:
    scenarios = {scenario.id: scenario for scenario in _load(args, both=args.impl is None and args.api is None)}
    for name in args.show:
        if name not in scenarios:
            raise UsageError(f"there is no scenario {text(name)!r}{_similar(name, scenarios)}")
    for at, name in enumerate(args.show):
        print(*[""] * bool(at), *show(scenarios[name]), sep="\n")
    return PASSED


# -- on what ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _import_path() -> Iterator[None]:
    """Find modules in the current directory, as ``python -m`` does; all the time, as a factory may import, too."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # somebody's module may have changed the list
            sys.path.remove(here)


def _factories(args: argparse.Namespace) -> tuple[str | None, int, Callable[[], Iterator[tuple[int | None, Factory]]]]:
    """Return the platform, how many replays a scenario has, and what makes them: seed and factory of each."""
    if args.impl is not None and ":" in args.impl:
        own = _load_factory(args.impl)
        return None, 1, lambda: iter([(None, own)])
    if args.platform == "trio":
        return "trio", 1, lambda: iter([(None, partial(builtin, platform="trio"))])
    importlib.import_module("callout._worlds.virtual.platform")  # one error now, not one a scenario
    orders = args.orders or 0
    return "virtual", 1 + orders, lambda: _orders(orders)


def _orders(orders: int) -> Iterator[tuple[int | None, Factory]]:
    yield None, builtin
    for seed in range(1, orders + 1):
        yield seed, partial(builtin, seed=seed)


def _load_factory(name: str) -> Factory:
    shown = f"--impl {text(name, 100)}"
    module, _, attribute = name.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), *attribute.split("."))):
        raise UsageError(f"{shown}: say MODULE:FACTORY, both dotted names")
    try:
        loaded = importlib.import_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever somebody's module raises, SystemExit, too
        what = f"{type(error).__name__}: {text(_said(error), 200)}"
        raise UsageError(f"{shown}: importing {module} raised {what} {place_of(error)}".rstrip()) from error
    try:
        factory: Factory = attrgetter(attribute)(loaded)
    except AttributeError as error:
        raise UsageError(f"{shown}: {error}{_similar(attribute, dir(loaded))}") from error
    if not callable(factory):
        raise UsageError(f"{shown}: {attribute} is not a function")
    return factory


def _said(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # somebody's __str__
        return "(its text cannot be had)"


# -- the run ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _stdout_for(args: argparse.Namespace) -> Iterator[TextIO]:
    """Give standard output to the report; with --json, what an implementation prints goes to standard error."""
    if not args.json:
        yield sys.stdout
        return
    with _descriptor_of_its_own() as out, contextlib.redirect_stdout(sys.stderr):
        yield out


@contextlib.contextmanager
def _descriptor_of_its_own() -> Iterator[TextIO]:
    """Give what is sys.stdout now; let descriptor 1, to which C code and child processes print, lead to standard
    error.
    """
    out = sys.stdout
    out.flush()
    try:
        os.fstat(1)
    except OSError:  # there is none to which anything could be printed
        yield out
        return
    try:
        elsewhere = os.dup(2)
    except OSError:  # there is no standard error
        elsewhere = os.open(os.devnull, os.O_WRONLY)
    kept = os.dup(1)
    try:
        os.dup2(elsewhere, 1)
        if _descriptor(out) != 1:
            yield out
        else:
            with open(kept, "w", encoding=out.encoding, errors=out.errors, closefd=False) as own:
                yield own
    finally:
        with contextlib.suppress(AttributeError, OSError, TypeError):  # not every system has it
            ctypes.CDLL(None).fflush(None)  # what C code has printed and not written yet
        os.dup2(kept, 1)
        os.close(kept)
        os.close(elsewhere)


def _descriptor(file: TextIO) -> int | None:
    try:
        return file.fileno()
    except (OSError, ValueError):  # it is in memory, or closed
        return None


@contextlib.contextmanager
def _junit(args: argparse.Namespace) -> Iterator[Callable[[Tally], None] | None]:
    """Open the file before anything runs, so that the run is not in vain."""
    if args.junit is None:
        yield None
        return
    if any(_same(args.junit, path) for path in args.files):
        raise UsageError(f"--junit {args.junit}: that is one of the trace files")
    try:
        file = args.junit.open("wb", buffering=0)
    except (OSError, ValueError) as error:
        raise UsageError(f"--junit {text(str(args.junit))}: {error}") from error
    with file:

        def write(tally: Tally) -> None:
            try:
                file.write(as_junit(tally))
            except OSError as error:
                raise UsageError(f"--junit {args.junit}: {error}") from error

        yield write


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except (OSError, ValueError):
        return False


def _replay(args: argparse.Namespace) -> int:
    tally = Tally(args.impl or "freebsd", None, 0)
    scenarios: list[Scenario] = []
    try:
        scenarios = _select(args, _load(args))
    except KeyboardInterrupt:
        tally.interrupted = True
    with _import_path(), _stdout_for(args) as out, _junit(args) as junit:
        try:
            _judge_all(args, scenarios, tally)
        except KeyboardInterrupt:
            tally.interrupted = True
        return _report(args, tally, out, junit)


def _judge_all(args: argparse.Namespace, scenarios: Sequence[Scenario], tally: Tally) -> None:
    tally.planned = len(scenarios)
    if tally.interrupted:
        return
    tally.platform, each, factories = _factories(args)
    tally.planned *= each
    judge = Judge(_timeout(args.timeout))
    with Progress(tally.planned) as progress:
        for scenario in scenarios:
            for seed, factory in factories():
                done = len(tally.verdicts)
                progress.show(done, f"{done}/{tally.planned}, {len(tally.failures)} failed; {scenario.id}")
                tally.add(judge.judge(scenario, factory, seed))
                if args.max_failures and len(tally.failures) >= args.max_failures:
                    tally.capped = True
                    return


def _report(args: argparse.Namespace, tally: Tally, out: TextIO, junit: Callable[[Tally], None] | None) -> int:
    failed: UsageError | None = None
    if junit is not None:
        try:
            junit(tally)
        except UsageError as error:  # the report on standard output is still wanted
            failed = error
    if args.json:
        json.dump(as_json(tally), out, indent=1)
        print(file=out)
    else:
        for line in report(tally, with_summary=args.summary):
            say(line, BAD if line.startswith("FAILED") else GOOD if line.endswith(" passed, 0 failed") else "", out)
    if failed is not None:
        raise failed
    return INTERRUPTED if tally.interrupted else FAILED if tally.failures else PASSED
