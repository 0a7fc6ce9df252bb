"""How much more two CPUs do than one: ``python -m tests.threads.scaling``, by hand, on a Python without a GIL.

Each CPU has a task that re-arms, cancels and arms its own callouts, all at once. It prints millions of calls a second,
of one CPU and of two, and their ratio: the median of so many rounds. "nothing" are calls of a function that share
nothing: what this machine gives, whose cores may be slower when both are busy.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from statistics import median

import trio

import callout
from callout import Callout, callout_init, callout_reset, callout_reset_curcpu, callout_stop, open_callouts

FAR = 100_000  # ticks

Op = Callable[[list[Callout], int], None]


def ignore(_: object) -> None:
    """Be a callback that never runs."""


def arm(callouts: list[Callout], ticks: int) -> None:
    """Arm each, or push it out."""
    for c in callouts:
        callout_reset(c, ticks, ignore, None)


def cancel(callouts: list[Callout], ticks: int) -> None:
    """Cancel each."""
    for c in callouts:
        callout_stop(c)


def nothing(callouts: list[Callout], ticks: int) -> None:
    """Do as much as the others, with nothing that another thread uses."""
    mine = [1]
    for _ in callouts:
        mine[0] = _half(_half(_half(mine[0])))


def _half(number: int) -> int:
    return number ^ 1


PASSES: tuple[tuple[str, Op], ...] = (("re-arm", arm), ("cancel", cancel), ("arm", arm), ("nothing", nothing))


async def rates(cpus: int, callouts: int, passes: int) -> dict[str, float]:
    """Return millions of calls a second, of that many CPUs at once, for each kind of call."""
    together = threading.Barrier(cpus)
    spent: dict[str, list[float]] = {name: [] for name, _ in PASSES}

    def work() -> None:
        mine = [Callout() for _ in range(callouts)]
        for c in mine:
            callout_init(c, 1)
            callout_reset_curcpu(c, FAR, ignore, None)
        ticks = FAR
        for _ in range(passes):
            ticks += 1000
            for name, op in PASSES:
                together.wait()
                begun = time.perf_counter_ns()
                op(mine, ticks)
                together.wait()  # the slower of the two counts
                spent[name].append((time.perf_counter_ns() - begun) / callouts)
        cancel(mine, 0)

    async def task() -> None:
        work()

    async with open_callouts(cpus, checking=False) as system:
        gc.disable()  # a collection stops all threads, whatever they do
        for cpu in range(cpus):
            system.cpu(cpu).start_soon(task)
    gc.enable()
    return {name: cpus * 1000 / median(each) for name, each in spent.items()}


def main() -> None:
    """Measure: one CPU and two in turn, each in a process of its own; or, in such a process, the one asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.threads.scaling", description=__doc__)
    parser.add_argument("--callouts", type=int, default=20_000)
    parser.add_argument("--passes", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cpus", type=int)
    options = parser.parse_args()
    if options.cpus:
        # CPython 3.13 specialises no code while there are threads: so there is one more, for one CPU as for two.
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        print(json.dumps(trio.run(rates, options.cpus, options.callouts, options.passes)))
        return
    has_gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    print(f"Python {sys.version.split()[0]}, {'with' if has_gil else 'without'} a GIL, the {callout.core} core")
    rounds = [[_in_a_process(cpus) for cpus in (1, 2)] for _ in range(options.rounds)]
    for name, _ in PASSES:
        slow, fast = (median(each[n][name] for each in rounds) for n in (0, 1))
        ratio = median(two[name] / one[name] for one, two in rounds)
        print(f"{name:7} one CPU {slow:.2f} M/s, two CPUs {fast:.2f} M/s: {ratio:.2f} x")


def _in_a_process(cpus: int) -> dict[str, float]:
    arguments = [sys.executable, "-m", "tests.threads.scaling", *sys.argv[1:], "--cpus", str(cpus)]
    output = subprocess.run(arguments, check=True, capture_output=True, text=True).stdout
    figures: dict[str, float] = json.loads(output)
    return figures


if __name__ == "__main__":
    main()
