"""The command ``callout top``."""

from __future__ import annotations

import argparse
import json
import math
import sys
from importlib.util import find_spec

from .._core.errors import MissingExtraError
from .._terminal import is_terminal
from ._source import SourceError, find, read
from ._table import plain


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to *parser*."""
    parser.add_argument(
        "target", nargs="?", metavar="PID|PATH", help="the process, or the socket; by default the only one of yours"
    )
    parser.add_argument("--once", action="store_true", help="print it once, as text, and end; in a pipe always so")
    parser.add_argument("--json", action="store_true", help="print it once, as JSON, and end")
    parser.add_argument(
        "--interval", type=_interval, default=1.0, metavar="SECONDS", help="how often to look (default: 1)"
    )


def _interval(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0.1 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds from 0.1 to 3600")
    return seconds


def run(args: argparse.Namespace) -> int:
    """Look at a system, and return the exit status: 0, or 2 if there is none that can be looked at."""
    try:
        path = find(args.target)
        if args.json:
            print(json.dumps(read(path), indent=2))
            return 0
        if args.once or not is_terminal(sys.stdout):
            print(plain(read(path)), end="")
            return 0
        if find_spec("rich") is None:
            raise MissingExtraError(
                "callout top needs rich: pip install 'callout[top]'; or say --once", call="callout top"
            )
        from ._live import show

        print(f"callout top: {show(path, args.interval)}")
    except SourceError as error:
        print(f"callout top: {error}", file=sys.stderr)
        return 2
    return 0


__all__ = ["add_arguments", "run"]
