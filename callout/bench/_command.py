"""The command ``callout bench``."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .. import MissingExtraError, core
from .._files import try_writing
from .._terminal import INTERRUPTED, Progress
from ._peer import BASE, PEERS, wants
from ._rounds import Plan, Sample, sample
from ._summary import Cell, drawn, summarize
from ._workloads import CALLS, ROWS, WORKLOADS

if TYPE_CHECKING:
    from rich.console import Console

DESCRIPTION: Final = (
    "Time these timers against those of event loops: each round, size and peer in a process of its own, interleaved. "
    "Exit status: 0 if every process ended well, 1 if one did not, 2 for wrong usage, 130 after Ctrl-C, which shows "
    "what was measured so far."
)
SIZES: Final = (1_000, 100_000, 1_000_000)
ROUNDS: Final = 3
QUICK: Final = Plan((), (10_000,), tuple(WORKLOADS), 1, 50_000)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    parser.description = DESCRIPTION
    parser.add_argument("--list", action="store_true", help="list the peers and the workloads, and measure nothing")
    parser.add_argument("--quick", action="store_true", help="one round of 10,000 timers: a minute, and a rough idea")
    parser.add_argument("--peers", metavar="A,B", help="only these; by default all that are installed")
    parser.add_argument("--workloads", metavar="A,B", help="only these")
    parser.add_argument("--sizes", metavar="N,M", help="how many timers; by default 1000,100000,1000000")
    parser.add_argument("--rounds", metavar="N", help="how often everything is measured; by default 3")
    parser.add_argument("--json", metavar="FILE", help="write every figure of every process")
    parser.add_argument("--svg", metavar="FILE", help="write a picture, of the size nearest to 100,000")
    parser.add_argument("--lateness-svg", metavar="FILE", help="write a picture of lateness, of the same size")


class UsageError(Exception):
    """Something on the command line cannot be done."""


def run(args: argparse.Namespace) -> int:
    """Carry out what was asked for; return the exit status."""
    if args.list:
        _list()
        return 0
    try:
        import psutil  # noqa: F401 - for the processes that are started
        from rich.console import Console

        from ._plot import draw, draw_lateness
    except ImportError as error:
        package = str(error.name).partition(".")[0]
        raise MissingExtraError(
            f"callout bench needs {package}: pip install 'callout[bench]'", call="callout bench"
        ) from None
    try:
        plan = _plan(args)
        in_json = _writable("--json", args.json)
        in_svg = _writable("--svg", args.svg)
        in_lateness_svg = _writable("--lateness-svg", args.lateness_svg)
    except UsageError as error:
        print(f"callout bench: {error}", file=sys.stderr)
        return 2
    left_out = [entry for entry in PEERS if entry.name not in plan.peers and wants(entry)]
    if left_out and args.peers is None:
        names = ", ".join(entry.name for entry in left_out)
        print(f"not installed, and left out: {names}", file=sys.stderr)
    samples: list[Sample] = []
    status = 0
    try:
        _measure(plan, samples)
    except KeyboardInterrupt:
        done, of = len(samples), len(list(plan.steps()))
        print(f"callout bench: interrupted after {done} of {of} processes; this is what they measured", file=sys.stderr)
        status = INTERRUPTED
    cells = summarize(plan, samples)
    _show(plan, cells, Console(width=None if sys.stdout.isatty() else 140))
    status = _tell_failures(samples) or status
    some = any(cell.size == drawn(plan) for cell in cells)
    file = in_json
    try:
        if in_json is not None:
            in_json.write_text(json.dumps(_report(plan, samples, cells), indent=1) + "\n", encoding="utf-8")
        file = in_svg
        if in_svg is not None and some:
            draw(plan, cells, in_svg)
        file = in_lateness_svg
        if in_lateness_svg is not None and some:
            draw_lateness(plan, cells, in_lateness_svg)
    except OSError as error:  # there is no room, for instance
        print(f"callout bench: cannot write {file}: {error.strerror or error}; say another file", file=sys.stderr)
        return 2
    return status


# -- what is asked for ---------------------------------------------------------------------------------------------


def _plan(args: argparse.Namespace) -> Plan:
    sizes = QUICK.sizes if args.quick else SIZES
    if args.sizes is not None:
        sizes = tuple(_count("--sizes", each, 10_000_000) for each in args.sizes.split(","))
    rounds = QUICK.rounds if args.quick else ROUNDS
    if args.rounds is not None:
        rounds = _count("--rounds", args.rounds, 1000)
    names = [entry.name for entry in PEERS]
    if args.peers is None:
        peers = [entry.name for entry in PEERS if not wants(entry)]
    else:
        peers = _names("--peers", args.peers, names)
        for entry in PEERS:
            if entry.name in peers and (cure := wants(entry)):
                raise UsageError(f"the peer {entry.name} is not installed: {cure}")
    workloads = list(WORKLOADS)
    if args.workloads is not None:
        workloads = _names("--workloads", args.workloads, workloads)
    if args.lateness_svg is not None and "lateness" not in workloads:
        raise UsageError("--lateness-svg shows the workload lateness, which --workloads does not name")
    return Plan(tuple(peers), sizes, tuple(workloads), rounds, QUICK.calls if args.quick else CALLS)


def _count(option: str, text: str, most: int) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if not 0 < number <= most:
        raise UsageError(f"{option} takes numbers from 1 to {most:,}, not {text!r}")
    return number


def _names(option: str, text: str, known: Sequence[str]) -> list[str]:
    """Return the names in *text*, in the order of *known*."""
    given = [each.strip() for each in text.split(",")]
    for each in given:
        if each not in known:
            raise UsageError(f"{option}: there is no {each!r}; there are {', '.join(known)}")
    return [each for each in known if each in given]


def _writable(option: str, name: str | None) -> Path | None:
    """Return the file, after a try: nobody wants to learn it after ten minutes."""
    if name is None:
        return None
    if not name:
        raise UsageError(f"{option}: say the name of a file after it")
    file = Path(name)
    try:
        try_writing(file)
    except OSError as error:
        raise UsageError(f"{option}: cannot write {name}: {error.strerror or error}") from None
    return file


def _list() -> None:
    print("peers:")
    for entry in PEERS:
        cure = wants(entry)
        missing = f"   [not installed: {cure}]" if cure else ""
        print(f"  {entry.name:16} {entry.about}{missing}")
    print("\nworkloads, and their figures:")
    for name, rows in ROWS.items():
        for row in rows:
            print(f"  {name:16} {row.name}, {row.unit}: {row.about}")


# -- carrying it out -----------------------------------------------------------------------------------------------


def _measure(plan: Plan, samples: list[Sample]) -> None:
    steps = list(plan.steps())
    with Progress(len(steps)) as progress:
        for done, (turn, size, peer) in enumerate(steps):
            progress.show(done, f"{done}/{len(steps)}; round {turn + 1}, {size:,} timers, {peer}")
            samples.append(sample(plan, turn, size, peer))


def _show(plan: Plan, cells: Sequence[Cell], console: Console) -> None:
    from ._table import tables

    for table in tables(plan, cells):
        console.print(table)


def _tell_failures(samples: Sequence[Sample]) -> int:
    """Say which peer could not be measured; return 1 if one has failed, and was not merely spared."""
    told: set[tuple[str, int, str]] = set()
    status = 0
    for each in samples:
        if each.error and (each.peer, each.size, each.error) not in told:
            told.add((each.peer, each.size, each.error))
            print(f"{each.peer}, {each.size:,} timers: {each.error}", file=sys.stderr)
        if each.error and not each.spared:
            status = 1
    return status


def _report(plan: Plan, samples: Sequence[Sample], cells: Sequence[Cell]) -> dict[str, object]:
    """Return all of it, as it is written to a file."""
    return {
        "machine": {
            "python": sys.version,
            "core": core,
            "platform": f"{platform.system()} {platform.machine()}",
            "cpus": os.cpu_count(),
            "date": datetime.now(tz=UTC).isoformat(timespec="seconds"),
        },
        "versions": {name: _version(name) for name in ("callout", *plan.peers)},
        "plan": {"peers": plan.peers, "sizes": plan.sizes, "rounds": plan.rounds, "calls": plan.calls},
        "samples": [
            {"round": each.turn, "size": each.size, "peer": each.peer}
            | ({"error": each.error} if each.error else {"figures": each.figures})
            for each in samples
        ],
        "medians": [
            {
                "size": cell.size,
                "figure": cell.row.name,
                "unit": cell.row.unit,
                "peer": cell.peer,
                "value": cell.value,
                f"ratio to {BASE}": cell.ratio,
            }
            for cell in cells
        ],
    }


def _version(peer: str) -> str:
    """Return the version of what a peer is made of."""
    needs = next((entry.needs for entry in PEERS if entry.name == peer), peer)
    if needs in sys.stdlib_module_names:
        return platform.python_version()
    try:
        return version("callout" if peer.startswith("callout") else packages_distributions()[needs][0])
    except (KeyError, PackageNotFoundError):
        return "unknown"
