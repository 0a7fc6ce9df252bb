"""Schedules a second: three lock sections on each of two threads, here and with the package frontrun, interleaved.

    pip install frontrun
    frontrun python tests/explore/schedules.py

Prints executions a second, the median over the rounds, and the ratio round by round: unreduced, reduced, and frontrun,
which reduces as well. It wants its command around the program, which patches the locks of the interpreter; without it
its column is left out.
"""

from __future__ import annotations

import importlib
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from callout import Mtx
from callout.explore import explore
from callout.testing import VirtualSMP

ROUNDS: Final = 9
SECTIONS: Final = 3


def scenario(vm: VirtualSMP) -> None:
    """Two threads, three lock sections each."""
    mutex = Mtx("m")

    def thread() -> None:
        for _ in range(SECTIONS):
            with mutex:
                pass

    vm.spawn(thread)
    vm.spawn(thread)


class Shared:
    """The same for frontrun."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def work(self) -> None:
        """Be a thread."""
        for _ in range(SECTIONS):
            with self.lock:
                pass


def ours(*, reduce: bool) -> int:
    """Explore the scenario without a bound; return how many schedules that took."""
    return explore(scenario, cpus=1, bound=None, reduce=reduce).schedules


def theirs() -> int | None:
    """Do as much with frontrun; None if it is not there."""
    try:
        frontrun: Any = importlib.import_module("frontrun")
        result = frontrun.explore(
            Shared, Shared.work, lambda shared: True, count=2, preemption_bound=None, detect_io=False
        )
    except (ImportError, RuntimeError) as error:
        print(f"frontrun is left out: {error}")
        return None
    return int(result.num_explored)


def rate(run: Callable[[], int]) -> tuple[float, int]:
    """Return executions a second, for about half a second, and executions of one search."""
    begin = time.perf_counter()
    executions = once = 0
    while not executions or time.perf_counter() - begin < 0.5:
        once = run()
        executions += once
    return executions / (time.perf_counter() - begin), once


def main() -> None:
    """Compare."""
    runs: dict[str, Callable[[], int]] = {
        "unreduced": lambda: ours(reduce=False),
        "reduced": lambda: ours(reduce=True),
    }
    if theirs() is not None:
        runs["frontrun"] = lambda: theirs() or 0
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            got, once = rate(run)
            rates[name].append(got)
            if len(rates[name]) == 1:
                print(f"{name}: {once:,} executions for the whole search")
    for name, got_each in rates.items():
        ratio = ""
        if "frontrun" in rates:
            ratio = f", {statistics.median(map(float.__truediv__, got_each, rates['frontrun'])):.1f} times frontrun"
        print(f"{name}: {statistics.median(got_each):,.0f} a second{ratio}")


if __name__ == "__main__":
    main()
