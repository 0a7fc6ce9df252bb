"""One process against two: ``python tests/explore/split.py``, on a machine with two idle cores.

The times are medians of runs that take turns. Processor time is that of all processes together: it shows what the split
costs where the cores are busy, and the times say nothing.
"""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import nullcontext
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

sys.path.append(str(Path(__file__).parents[2]))

from callout.explore import Certificate, explore
from callout.museum import EXHIBITS
from callout.testing import VirtualSMP
from tests.explore.scenarios import counts
from tests.explore.test_reduction import teardown

TIMES: Final = 3


def exhibit(number: str, name: str, vm: VirtualSMP) -> object:
    """Be a variant of an exhibit of the museum."""
    return next(each for each in EXHIBITS[number].variants if each.name == name).scenario(vm)


CASES: Final[dict[str, tuple[Callable[[VirtualSMP], object], dict[str, Any]]]] = {
    "R0.2 all-bases, bound 3": (partial(exhibit, "R0.2", "all-bases"), {"bound": 3, "cells_only": True}),
    "a teardown, bound 3, unreduced": (teardown, {"bound": 3, "reduce": False}),
    "2 threads, 3 additions each, no bound": (partial(counts, 2, 3), {"cpus": 1, "bound": None}),
}


def spent() -> float:
    """Return the processor time of this process and of those that have ended."""
    both = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in both)


def measure(scenario: Callable[[VirtualSMP], object], options: dict[str, Any], processes: int) -> tuple[float, ...]:
    """Explore once; return seconds, processor seconds, and how many schedules were run."""
    processor = spent()
    pool: Any = ProcessPoolExecutor(processes, get_context("fork")) if processes > 1 else nullcontext()
    with pool as executor:
        if isinstance(executor, Executor):
            list(executor.map(abs, range(8)))  # have the processes begun
        begun = time.monotonic()
        certificate: Certificate = explore(scenario, executor=executor, **options)
        seconds = time.monotonic() - begun
    assert certificate.exhausted
    return seconds, spent() - processor, certificate.schedules


if __name__ == "__main__":
    for name, (scenario, options) in CASES.items():
        runs = [[measure(scenario, options, processes) for processes in (1, 2)] for _ in range(TIMES)]
        for processes, each in zip((1, 2), zip(*runs, strict=True), strict=True):
            seconds, processor, schedules = (statistics.median(column) for column in zip(*each, strict=True))
            print(f"{name}: {processes} processes, {seconds:.1f} s ({processor:.1f} s of processors), {schedules:.0f}")
