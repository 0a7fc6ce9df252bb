"""Times re-arming in several installations of this package: ``python -m tests.bench.versions PYTHON PYTHON ...``.

Each argument is the interpreter of a virtual environment in which one is installed: two commits, for example. Their
processes run side by side and measure in turn, a few milliseconds each, so that whatever the machine does meanwhile
meets all alike; the order is turned round with every round. As the same code may be faster in one process than in the
next, by where its memory lies, all are started again several times. It prints the median nanoseconds of a
``callout_reset()`` on a pending callout, and the median of the ratios within a round to the first installation.
``CALLOUT_PURE=1`` in the environment has them use the pure core.
"""

from __future__ import annotations

import argparse
import os
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from statistics import median, quantiles
from typing import Final

WORKER: Final = """
import sys
from time import perf_counter_ns

import trio

from callout import Callout, callout_init, callout_reset, core, open_callouts


def ignore(arg):
    pass


def rearm(c, calls):
    begun = perf_counter_ns()
    for _ in range(calls):
        callout_reset(c, 100_000, ignore, None)
    return (perf_counter_ns() - begun) / calls


async def main():
    async with open_callouts(checking=False):
        c = Callout()
        callout_init(c, 1)
        callout_reset(c, 100_000, ignore, None)
        print(core, flush=True)
        for calls in sys.stdin:
            print(rearm(c, int(calls)), flush=True)


trio.run(main)
"""


class Installation:
    """A process of one installation."""

    def __init__(self, python: str, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.core = self._read()
        if not self.core:
            raise RuntimeError(f"{python} cannot run this package")

    def measure(self, calls: int) -> float:
        """Return nanoseconds a call."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{calls}\n")
        self._process.stdin.flush()
        return float(self._read())

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


def measure(pythons: Sequence[str], starts: int, rounds: int, calls: int) -> tuple[list[str], list[list[float]]]:
    """Return the core of each installation, and for each round what a call takes in each."""
    found: list[list[float]] = []
    cores: list[str] = []
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    for _ in range(starts):
        with ExitStack() as stack:
            processes = [
                stack.enter_context(
                    subprocess.Popen(
                        [python, "-P", "-c", WORKER],
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        text=True,
                        env=env,
                    )
                )
                for python in pythons
            ]
            ready = [Installation(python, process) for python, process in zip(pythons, processes, strict=True)]
            cores = [each.core for each in ready]
            for each in ready:
                each.measure(calls)  # until its code is warm
            for turn in range(rounds):
                taken = [0.0] * len(ready)
                order = range(len(ready)) if turn % 2 == 0 else reversed(range(len(ready)))
                for place in order:
                    taken[place] = ready[place].measure(calls)
                found.append(taken)
    return cores, found


def lines(pythons: Sequence[str], cores: Sequence[str], found: Sequence[Sequence[float]]) -> list[str]:
    """Return what to print: a line for each installation."""
    out = []
    for place, (python, core) in enumerate(zip(pythons, cores, strict=True)):
        ratios = [taken[place] / taken[0] for taken in found]
        low, middle, high = quantiles(ratios, n=4)
        ns = median(taken[place] for taken in found)
        out.append(f"{ns:7.1f} ns  {middle:.3f} ({low:.3f} to {high:.3f})  {core:8}  {python}")
    return out


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.versions", description=__doc__)
    parser.add_argument("pythons", nargs="+", metavar="PYTHON")
    parser.add_argument("--starts", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--calls", type=int, default=20_000)
    options = parser.parse_args()
    cores, found = measure(options.pythons, options.starts, options.rounds, options.calls)
    print("median ns of a call, median ratio to the first (its quartiles), core, interpreter")
    print("\n".join(lines(options.pythons, cores, found)))


if __name__ == "__main__":
    main()
