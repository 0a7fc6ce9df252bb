"""The command line of the demo."""

from __future__ import annotations

import argparse
import math
import random
from dataclasses import dataclass
from typing import Final

DRAIN_ASYNC: Final = "drain-async"
DRAIN: Final = "drain"
STOP_AND_FREE: Final = "stop-and-free"

MAX_CPUS: Final = 64
MAX_CONNECTIONS: Final = 1_000_000
MAX_SECONDS: Final = 7 * 24 * 3600


@dataclass(frozen=True)
class Options:
    """What was asked for, and what follows from it. Times are in seconds."""

    cpus: int
    connections: int
    seconds: float
    seed: int
    json: bool
    teardown: str
    staged: bool
    trace: str | None
    top: bool

    @property
    def pause(self) -> float:
        """How long a client waits between two messages, in the mean: about 800 messages a second in all."""
        return max(0.05, self.connections / 800)

    @property
    def client_life(self) -> float:
        """How long a client keeps a connection, in the mean: at most about 250 new connections a second."""
        return max(self.seconds / 4, self.connections / 250)

    @property
    def server_life(self) -> float:
        """How long the server keeps one, in the mean."""
        return 2 * self.client_life

    @property
    def retransmit(self) -> float:
        """How long the server waits for a sign of life before it sends its last echo again: at first."""
        return self.pause / 2

    @property
    def keepalive(self) -> float:
        """How long a connection may be silent before the server asks."""
        return self.pause

    @property
    def idle(self) -> float:
        """How long a connection may be silent before the server closes it."""
        return 2 * self.pause


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--cpus", type=_int("CPUs", 1, MAX_CPUS), default=2, metavar="N", help="CPUs, each a loop (default: 2)"
    )
    parser.add_argument(
        "--connections",
        type=_int("connections", 1, MAX_CONNECTIONS),
        default=200,
        metavar="N",
        help="connections that are kept open at a time; each takes two descriptors (default: 200)",
    )
    parser.add_argument(
        "--seconds",
        type=_seconds,
        default=5.0,
        metavar="S",
        help="how long to run once all connections are up (default: 5)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=None,
        metavar="N",
        help="for who does what when; threads and sockets keep their own order all the same (default: a new one)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output, and only that")
    parser.add_argument(
        "--teardown",
        choices=(DRAIN_ASYNC, DRAIN, STOP_AND_FREE),
        default=DRAIN_ASYNC,
        help="how control blocks are freed: reference-counted by callout_drain_async; after awaiting callout_drain; or "
        f"right after callout_stop, which is the bug that the others are the cure for (default: {DRAIN_ASYNC})",
    )
    parser.add_argument(
        "--no-stage",
        action="store_true",
        help=f"with {STOP_AND_FREE}, do not hold softclock up between dequeue and lock: see whether the race shows by "
        "itself",
    )
    parser.add_argument(
        "--trace",
        metavar="FILE",
        help="write what happens to every callout into FILE, for a trace viewer and for  callout explore --trace",
    )
    parser.add_argument("--top", action="store_true", help="let  callout top  look at it")


def options_of(args: argparse.Namespace) -> Options:
    """Return the options of parsed arguments."""
    return Options(
        cpus=args.cpus,
        connections=args.connections,
        seconds=args.seconds,
        seed=random.SystemRandom().randrange(1 << 32) if args.seed is None else args.seed,
        json=args.json,
        teardown=args.teardown,
        staged=args.teardown == STOP_AND_FREE and not args.no_stage,
        trace=args.trace,
        top=args.top,
    )


class _Int:
    """An argument that is a whole number of something, within limits."""

    def __init__(self, what: str, low: int, high: int) -> None:
        self._what, self._low, self._high = what, low, high

    def __call__(self, text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = self._low - 1
        if not self._low <= value <= self._high:
            raise argparse.ArgumentTypeError(
                f"the number of {self._what} must be a whole number from {self._low} to {self._high}, not {text!r}"
            )
        return value


_int = _Int


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= MAX_SECONDS:
        raise argparse.ArgumentTypeError(
            f"must be a number of seconds above 0, at most {MAX_SECONDS} (a week), not {text!r}"
        )
    return value
