"""The command ``callout soak``."""

from __future__ import annotations

import argparse
import json
import logging
import math
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import trio

from .. import core
from .._terminal import BAD, GOOD, INTERRUPTED, STRESSED, Progress, say
from ._faults import FAULTS, can_exhaust
from ._figures import Held
from ._freebsd import FreeBSD
from ._ledger import Ledger
from ._linux import Linux
from ._round import Options, Round

DESCRIPTION: Final = (
    "Make random calls of every kind from threads and tasks, on several CPUs and with faults, and account for every "
    "arming: it has fired once, or was replaced, or was removed. Exit status: 0 if all is accounted for, 1 if not, 2 "
    "for wrong usage, 130 after Ctrl-C, which shows the figures so far."
)
IMPLEMENTATIONS: Final[dict[str, type[Round]]] = {"freebsd": FreeBSD, "linux": Linux}
UNUSABLE: Final = 2
ROUND: Final = 1.0  # seconds, the most that a round has
LEAST: Final = 8  # rounds, so that each kind of them comes, however short the time is
MOST: Final = 64  # threads, and CPUs
LONGEST: Final = 30 * 24 * 3600  # seconds


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    parser.description = DESCRIPTION
    parser.add_argument(
        "--impl", choices=[*IMPLEMENTATIONS, "both"], default="both", help="whose calls (default: both)"
    )
    parser.add_argument("--seconds", metavar="S", default="20", help="how long, in seconds (default: 20)")
    parser.add_argument(
        "--cpus", metavar="N", default="2", help="CPUs, each a loop with a task that calls (default: 2)"
    )
    parser.add_argument("--threads", metavar="N", default="4", help="threads that call (default: 4)")
    parser.add_argument("--seed", metavar="N", help="for the calls; their order among threads differs all the same")
    parser.add_argument(
        "--fault",
        action="append",
        choices=[*FAULTS, "none"],
        help=f"only this fault (these, if repeated; none: without any; default: all): "
        f"{'; '.join(f'{name}: {what}' for name, what in FAULTS.items())}",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output, and only that")


class UsageError(Exception):
    """Something on the command line cannot be done."""


def run(args: argparse.Namespace) -> int:
    """Carry out what was asked for; return the exit status."""
    try:
        options = _options(args)
    except UsageError as error:
        print(f"callout soak: {error}", file=sys.stderr)
        return UNUSABLE
    names = tuple(IMPLEMENTATIONS) if args.impl == "both" else (args.impl,)
    soak = Soak(options, names)
    with _quiet_log():
        try:
            trio.run(soak.run)
        except KeyboardInterrupt:  # it came before the handler was there, or after it had gone
            soak.interrupted = True
    if args.json:
        print(json.dumps(soak.as_json(), indent=1))
    else:
        for line, style in soak.lines():
            say(line, style)
    return INTERRUPTED if soak.interrupted else 1 if soak.ledger.found else 0


def _options(args: argparse.Namespace) -> Options:
    asked = args.fault or list(FAULTS)
    if "none" in asked and len(asked) > 1:
        raise UsageError("--fault none goes with no other --fault")
    faults = frozenset(asked) - {"none"}
    if "descriptors" in faults and not can_exhaust():
        if args.fault:
            raise UsageError("--fault descriptors: this system has no limit of descriptors that could be lowered")
        faults -= {"descriptors"}
    try:
        seconds = float(args.seconds)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= LONGEST:
        raise UsageError(f"--seconds must be a number above 0, at most {LONGEST} (30 days), not {args.seconds!r}")
    return Options(
        cpus=_count("--cpus", args.cpus, 1, MOST),
        threads=_count("--threads", args.threads, 0, MOST),
        seconds=seconds,
        seed=random.SystemRandom().randrange(1 << 32) if args.seed is None else _count("--seed", args.seed, 0, 1 << 64),
        faults=faults,
    )


def _count(option: str, text: str, least: int, most: int) -> int:
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if not least <= number <= most:
        raise UsageError(f"{option} must be a whole number from {least} to {most}, not {text!r}")
    return number


@contextmanager
def _quiet_log() -> Iterator[None]:
    """Keep the log quiet, in a ``with`` block: it would tell of every fault."""
    log = logging.getLogger("callout")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)


class Soak:
    """A run: round after round, until the time is over or Ctrl-C comes."""

    def __init__(self, options: Options, names: tuple[str, ...]) -> None:
        self.options = options
        self.names = names
        self.ledger = Ledger(time.monotonic_ns)
        self.interrupted = False
        self._round: Round | None = None

    async def run(self) -> None:
        """Run."""
        async with trio.open_nursery() as nursery:
            if threading.current_thread() is threading.main_thread():
                await nursery.start(self._listen)
            with Progress(self.options.seconds) as progress:
                await self._rounds(progress)
            nursery.cancel_scope.cancel()

    async def _rounds(self, progress: Progress) -> None:
        figures, ledger = self.ledger.figures, self.ledger
        begun = trio.current_time()
        number = 0
        while not self.interrupted and (left := begun + self.options.seconds - trio.current_time()) > 0:
            name = self.names[number % len(self.names)]
            turn = number // len(self.names)
            ledger.where = f"round {number}, {name}"
            progress.show(
                self.options.seconds - left,
                f"{ledger.where}; {figures.calls.total():,} calls, {figures.fired:,} fired, {ledger.found} found",
            )
            self._round = IMPLEMENTATIONS[name](self.options, ledger, number)
            await self._round.run(
                min(ROUND, self.options.seconds / LEAST, left),
                under_load="close" in self.options.faults and turn % 2 == 1,
            )
            self._round = None
            figures.last = Held.now()
            figures.first = figures.first or figures.last
            number += 1

    async def _listen(self, task_status: trio.TaskStatus[None]) -> None:
        """Have Ctrl-C end the run, instead of a KeyboardInterrupt that may be raised in the middle of a callback."""
        with trio.open_signal_receiver(signal.SIGINT) as signals:
            task_status.started()
            async for _ in signals:
                self.interrupted = True
                if self._round is not None:
                    self._round.stop()

    def lines(self) -> list[tuple[str, str]]:
        """Return the report, line by line, each with its style."""
        options, ledger = self.options, self.ledger
        on = f"{core} core, {options.cpus} CPUs, {options.threads} threads, seed {options.seed}"
        out = [(f"callout soak: {', '.join(self.names)}, {on}", STRESSED)]
        out += [(line, "") for line in ledger.figures.lines()]
        if self.interrupted:
            out.append(("interrupted; these are the figures until then", STRESSED))
        out += [(f"FOUND: {problem}", BAD) for problem in ledger.problems]
        if ledger.found > len(ledger.problems):
            out.append((f"FOUND: {ledger.found - len(ledger.problems)} more", BAD))
        if ledger.found:
            out.append((f"{ledger.found} found, with --seed {options.seed}", BAD))
        else:
            out.append(("all is accounted for", GOOD))
        return out

    def as_json(self) -> dict[str, object]:
        """Return the report."""
        options, ledger = self.options, self.ledger
        return {
            "implementations": self.names,
            "core": core,
            "cpus": options.cpus,
            "threads": options.threads,
            "seed": options.seed,
            "faults allowed": sorted(options.faults),
            "interrupted": self.interrupted,
            "found": ledger.found,
            "problems": ledger.problems,
            **ledger.figures.as_json(),
        }
