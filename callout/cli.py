"""The command ``callout``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from ._core.errors import MissingExtraError

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line *argv* (default: the process's own) and return the exit status."""
    parser = argparse.ArgumentParser(prog="callout", description="FreeBSD's callout(9) for Python on trio.")
    parser.add_argument("--version", action="version", version=f"callout {_version()}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    from .conformance import _main as conformance
    from .demo import add_arguments as add_demo_arguments
    from .demo import main as demo

    conformance.add_arguments(
        commands.add_parser(
            "conformance",
            help="replay recorded runs of the real kernels",
            description="Replay recorded runs of the real kernels, and say where an implementation differs. "
            "Exit status: 0 if none failed, 1 if some did, 2 for what cannot be read.",
        )
    )
    add_demo_arguments(
        commands.add_parser(
            "demo",
            help="a TCP echo service that lives on callouts",
            description="Run a TCP echo service and its clients over real sockets, every connection with three "
            "callouts, torn down at random moments. Exit status: 0 if every control block was freed once and nothing "
            "was used afterwards, else 1.",
        )
    )
    args = parser.parse_args(argv)
    try:
        return conformance.run(args) if args.command == "conformance" else demo(args)
    except MissingExtraError as error:
        print(f"callout: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return conformance.INTERRUPTED


def _version() -> str:
    try:
        return version("callout")
    except PackageNotFoundError:  # run from a source tree
        return "(not installed)"
