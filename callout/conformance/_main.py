"""``callout conformance``."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

from .._core.errors import CalloutError, TraceError
from ._builtin import PLATFORMS, builtin
from ._format import OPS, Scenario, load, shipped
from ._replay import Subsystem, replay

Factory = Callable[[Scenario], Subsystem]

PASSED: Final = 0
FAILED: Final = 1
UNUSABLE: Final = 2
INTERRUPTED: Final = 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--impl",
        default="freebsd",
        metavar="freebsd|linux|MODULE:FACTORY",
        help="what to judge: callout(9) or the Linux shim of this package, or a function that makes a "
        "callout.conformance.Subsystem from a Scenario (default: freebsd)",
    )
    parser.add_argument(
        "--platform",
        choices=PLATFORMS,
        default="virtual",
        help="deterministic virtual CPUs, or real loops and threads; for the built-in ones only (default: virtual)",
    )
    parser.add_argument(
        "--api", choices=sorted(OPS), help="which shipped recordings to replay for MODULE:FACTORY (default: freebsd)"
    )
    parser.add_argument(
        "--tag", action="append", default=[], metavar="T", help="only scenarios with this tag (with all, if repeated)"
    )
    parser.add_argument(
        "--orders",
        type=int,
        default=0,
        metavar="N",
        help="replay under N random orders of who runs next, too, with the seeds 1 to N (virtual platform)",
    )
    parser.add_argument(
        "files", nargs="*", metavar="FILE", type=Path, help="trace files (default: those that come with the package)"
    )


def run(args: argparse.Namespace) -> int:
    """Replay, print what differs and how many passed; return the exit status."""
    try:
        factories = list(_factories(args))
        scenarios = list(_select(args))
    except CalloutError as error:
        print(f"callout conformance: {error}", file=sys.stderr)
        return UNUSABLE
    passed = failed = 0
    for scenario in scenarios:
        for name, factory in factories:
            wrong = _judge(scenario, factory)
            if wrong is None:
                passed += 1
            else:
                failed += 1
                print(f"FAILED {wrong}{name}")
    print(f"{passed} passed, {failed} failed")
    return FAILED if failed else PASSED


def _select(args: argparse.Namespace) -> Iterator[Scenario]:
    api = args.impl if args.impl in OPS else args.api
    found = False
    for path in args.files or shipped(api or "freebsd"):
        for scenario in load(path):
            if api is not None and scenario.api != api:
                raise TraceError(f"{path}: {scenario.id} is a scenario of {scenario.api}; use --impl {scenario.api}")
            if set(args.tag) <= set(scenario.tags):
                found = True
                yield scenario
    if not found:
        raise TraceError(
            f"no scenario has all of the tags: {', '.join(args.tag)}" if args.tag else "the files hold no scenario"
        )


def _factories(args: argparse.Namespace) -> Iterator[tuple[str, Factory]]:
    """Yield what each scenario is replayed on, with what to say of it when that fails."""
    if args.orders < 0:
        raise TraceError("--orders must not be negative")
    if ":" in args.impl:
        yield "", _load_factory(args.impl)
        return
    if args.impl not in OPS:
        raise TraceError(
            f"--impl {args.impl}: neither a built-in implementation ({', '.join(sorted(OPS))}) nor MODULE:FACTORY"
        )
    if args.platform == "trio":
        if args.orders:
            raise TraceError("--orders needs --platform virtual: real threads run in the order in which they run")
        yield "", partial(builtin, platform="trio")
        return
    importlib.import_module("callout._worlds.virtual.platform")  # one error now, not one a scenario
    yield "", builtin
    for seed in range(1, args.orders + 1):
        yield f"\n  under the random order with seed {seed}", partial(builtin, seed=seed)


def _load_factory(name: str) -> Factory:
    module, _, attribute = name.partition(":")
    sys.path.insert(0, "")  # as python -m does: the reader's own module is in the current directory
    try:
        factory: Factory = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise TraceError(f"--impl {name}: {error}") from error
    finally:
        sys.path.pop(0)
    if not callable(factory):
        raise TraceError(f"--impl {name}: {attribute} is not a function")
    return factory


def _judge(scenario: Scenario, factory: Factory) -> str | None:
    """Return what went wrong, or None. An implementation that raises has failed this scenario, not the run."""
    try:
        subsystem = factory(scenario)
        try:
            mismatch = replay(scenario, subsystem)
        finally:
            subsystem.close()
    except Exception as error:  # whatever somebody's implementation raises
        return f"{scenario.id}: {scenario.name}\n  raised {type(error).__name__}: {error}"
    return None if mismatch is None else str(mismatch)
