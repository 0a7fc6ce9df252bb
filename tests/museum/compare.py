"""Every model of the museum with the reduction and without: the same final states, and the same bugs.

    python -m tests.museum.compare [--schedules 20000]

prints a line for each, and takes some ten minutes; the exit status is 1 if any differs. Where a plain search is cut off
by its limit, what it has seen must have been seen with the reduction as well. The tests do the same with a low limit.
"""

from __future__ import annotations

import argparse
import sys
from typing import Final, NamedTuple

from callout.explore import Violation, explore
from callout.museum import EXHIBITS, Variant

BOUND: Final = 3


class Seen(NamedTuple):
    """What a search of a model has shown."""

    schedules: int
    exhausted: bool
    states: frozenset[str]
    broke: str  # how the violation reads; "" if there was none


def seen(variant: Variant, *, reduce: bool, schedules: int | None = None) -> Seen:
    """Explore a model at the bound at which it is in the museum."""
    bound = variant.preemptions if variant.breaks else BOUND
    try:
        certificate = explore(
            variant.scenario,
            cpus=variant.cpus,
            bound=bound,
            cells_only=variant.cells_only,
            reduce=reduce,
            schedules=schedules,
            shrink=False,
        )
    except Violation as violation:
        return Seen(violation.number, False, frozenset(), str(violation.__cause__).partition("\n")[0])
    return Seen(certificate.schedules, certificate.exhausted, certificate.final_states, "")


def difference(plain: Seen, reduced: Seen) -> str:
    """Say how they differ; "" if they do not, as far as the plain search came."""
    if plain.broke:
        return "" if reduced.broke else f"only the plain search finds: {plain.broke}"
    if reduced.broke:
        return "" if not plain.exhausted else f"only the reduced search finds: {reduced.broke}"
    missing = plain.states - reduced.states
    if missing:
        return f"the reduction leaves out {sorted(missing)}"
    if plain.exhausted and reduced.states != plain.states:
        return f"only with the reduction: {sorted(reduced.states - plain.states)}"
    return ""


def main() -> int:
    """Compare all; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--schedules", type=int, default=20_000, metavar="N", help="of a plain search, at most")
    limit = parser.parse_args().schedules
    status = 0
    for exhibit in EXHIBITS.values():
        for variant in exhibit.variants:
            reduced, plain = seen(variant, reduce=True), seen(variant, reduce=False, schedules=limit)
            differs = difference(plain, reduced)
            end = differs or ("same" if plain.broke or plain.exhausted else "the same so far")
            status |= bool(differs)
            sys.stdout.write(f"{exhibit.number:7}{variant.name:30}{reduced.schedules:>8}{plain.schedules:>8}  {end}\n")
            sys.stdout.flush()
    return status


if __name__ == "__main__":
    sys.exit(main())
