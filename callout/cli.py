"""The command ``callout``."""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Final, NoReturn, cast

from ._again import command, environment
from ._core.build import CORE, PURE, VARIABLE, WHY
from ._core.errors import MissingExtraError
from ._terminal import INTERRUPTED, TERMINATED, termination_as_interrupt

__all__ = ["main", "run"]

_SHELLS: Final = ("bash", "zsh", "fish")
_NOBODY_READS: Final = 141  # what a shell says of a command that a closed pipe ended: 128 + SIGPIPE


def run() -> NoReturn:
    """Run the process's own command line, and end the process with its exit status.

    Does not wait for threads that a judged implementation has left behind.
    """
    status = _NOBODY_READS
    try:
        status = main()
    except SystemExit as error:  # argparse
        status = error.code if isinstance(error.code, int) else 2
    from .conformance import _judge

    if any(thread.is_alive() for thread in _judge.abandoned):
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
        os._exit(status)  # else the interpreter would join their threads first, and those may never end
    sys.exit(status)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line *argv* (default: the process's own) and return the exit status."""
    # What cannot be encoded is escaped: a report must not fail at a title.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    if sys.stdout is None:
        print("callout: cannot write to standard output: it is closed", file=sys.stderr)
        return 2
    try:
        try:
            with termination_as_interrupt() as came:
                status = _main(argv, came)
            return TERMINATED if came and status == INTERRUPTED else status
        finally:
            sys.stdout.flush()  # here, where a closed pipe can be told from an error
    except BrokenPipeError:
        _silence()
        return _NOBODY_READS
    except OSError as error:  # those of files that were named are reported where they are read
        _silence()
        print(f"callout: cannot write to standard output: {error.strerror or error}", file=sys.stderr)
        return 2


def _silence() -> None:
    """Have standard output lead nowhere, so that the interpreter's own flush at the end is quiet."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _main(argv: Sequence[str] | None, came: list[int]) -> int:
    try:
        return _command(argv, came)
    except MissingExtraError as error:
        print(f"callout: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"callout: {'terminated' if came else 'interrupted'}", file=sys.stderr)
        return INTERRUPTED


class _Parser(argparse.ArgumentParser):
    """One that says of a subcommand's wrong arguments how the subcommand is used, and not how the whole is."""

    subcommands: dict[str, argparse.ArgumentParser] | None = None

    def parse_args(  # type: ignore[override]  # of its overloads, this is the one that is used
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """Parse the command line *args*."""
        parsed, rest = self.parse_known_args(args, namespace)
        if rest:
            of = cast("dict[str, argparse.ArgumentParser]", self.subcommands)[parsed.command]
            of.error(f"unrecognized arguments: {' '.join(rest)}")
        return parsed


def _command(argv: Sequence[str] | None, came: list[int]) -> int:
    parser = _Parser(prog="callout", description="FreeBSD's callout(9) for Python on trio.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"callout {_version()} ({_core()})")
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", parser_class=argparse.ArgumentParser
    )
    parser.subcommands = commands.choices

    from .conformance import _main as conformance
    from .demo import add_arguments as add_demo_arguments
    from .demo import main as demo

    conformance.add_arguments(
        commands.add_parser(
            "conformance",
            help="replay recorded runs of the real kernels",
            description="Replay recorded runs of the real kernels, and say where an implementation differs. "
            "Exit status: 0 if none failed, 1 if some did, 2 for what cannot be read or done, 130 after Ctrl-C.",
            allow_abbrev=False,
        )
    )
    add_demo_arguments(
        commands.add_parser(
            "demo",
            help="a TCP echo service that lives on callouts",
            description="Run a TCP echo service and its clients over real sockets, every connection with three "
            "callouts, torn down at random moments. Exit status: 0 if every control block was freed once and nothing "
            "was used afterwards, else 1.",
            allow_abbrev=False,
        )
    )
    from .bench import _command as bench

    bench.add_arguments(
        commands.add_parser("bench", help="time these timers against those of event loops", allow_abbrev=False)
    )
    from .top import _command as top

    top.add_arguments(
        commands.add_parser(
            "top",
            help="what the callout systems of a running process do",
            description="Show what a callout system of another process does, which was opened with "
            "open_callouts(top=True). Exit status: 0, 2 if it cannot be looked at, 130 after Ctrl-C.",
            allow_abbrev=False,
        )
    )
    from .soak import _command as soak

    soak.add_arguments(
        commands.add_parser("soak", help="random calls under load and faults, all accounted for", allow_abbrev=False)
    )
    exploring = commands.add_parser(
        "explore",
        help="explore the races of kernel timers, and their remedies",
        allow_abbrev=False,
    )
    completing = commands.add_parser(
        "completion",
        help="print what has a shell complete this command",
        description="Print what has a shell complete this command. In the shell's own start-up file: "
        'eval "$(callout completion bash)", the same with zsh, callout completion fish | source.',
        allow_abbrev=False,
    )
    completing.add_argument("shell", choices=_SHELLS, help="which shell")
    if "_ARGCOMPLETE" in os.environ:  # the shell wants to know how a line may go on
        _complete(parser, exploring)
    if _names_command(argv, "explore"):  # it needs an extra, which the others do without
        from .museum import _command as museum

        museum.add_arguments(exploring)
        args = parser.parse_args(argv)
        return museum.run(args) if CORE == PURE else _in_pure(sys.argv[1:] if argv is None else argv, came)
    args = parser.parse_args(argv)
    match args.command:
        case "bench":
            return bench.run(args)
        case "top":
            return top.run(args)
        case "soak":
            return soak.run(args)
        case "completion":
            return _completion(args.shell)
        case "conformance":
            return conformance.run(args)
        case _:
            return demo(args)


def _complete(parser: argparse.ArgumentParser, exploring: argparse.ArgumentParser) -> None:
    """Tell the shell that has asked how the line may go on, and end the process; do nothing without argcomplete."""
    try:
        import argcomplete
    except ImportError:
        return
    with contextlib.suppress(MissingExtraError):
        from .museum import _command as museum

        museum.add_arguments(exploring)
    argcomplete.autocomplete(parser)


def _completion(shell: str) -> int:
    """Print what *shell* runs to complete the command."""
    try:
        from argcomplete import shellcode
    except ImportError:
        raise MissingExtraError(
            "callout completion needs argcomplete: pip install 'callout[cli]'", call="callout completion"
        ) from None
    print(shellcode(["callout"], shell=shell))
    return 0


def _in_pure(argv: Sequence[str], came: list[int]) -> int:
    """Carry out a command in a process that has the pure core; return the exit status."""
    again = command(str(__package__), *argv)
    with subprocess.Popen(again, env=environment(**{VARIABLE: "1"})) as process:  # noqa: S603 - itself
        try:
            return process.wait()
        except KeyboardInterrupt:
            if came:  # Ctrl-C at a terminal is sent to both, SIGTERM to this one
                process.terminate()
            process.wait()
            return INTERRUPTED


def _names_command(argv: Sequence[str] | None, name: str) -> bool:
    """Return whether the command line begins with that command."""
    return next((word for word in (sys.argv[1:] if argv is None else argv) if not word.startswith("-")), "") == name


def _core() -> str:
    return f"{CORE} core{f': {WHY}' if WHY else ''}"


def _version() -> str:
    try:
        return version("callout")
    except PackageNotFoundError:  # run from a source tree
        return "(not installed)"
