"""A sample that is split by the numbers of its schedules: every worker runs some that follow one another.

They are the schedules that one process runs. PCT looks at the longest run so far. So what a chunk has run counts only
if it was told the right length; if a run before it turned out to be longer, the chunk is run again, and that soon
ends.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from typing import Final, NamedTuple

from ._outcome import NondeterminismError
from ._progress import Progress
from ._run import Scenario
from ._sampling import Choosers
from ._schedule import Setting
from ._search import Failure, Found, Sample, Told
from ._split import ALONE, SLICE, one_at_a_time
from ._workers import Workers

AHEAD: Final = 64  # chunks that are handed out


class Kind(NamedTuple):
    """What is sampled."""

    scenario: Scenario
    setting: Setting
    max_steps: int
    make: Choosers


class Chunk(NamedTuple):
    """Some schedules."""

    first: int  # the number of the first
    last: int  # and of the one after the last
    longest: int  # the longest run before them


def run(kind: Kind, chunk: Chunk) -> Told:
    """Run the schedules of a chunk, in whatever process this is."""
    with one_at_a_time:
        runs = Sample(kind.scenario, kind.setting, kind.max_steps)
        runs.schedules, runs.longest = chunk.first, chunk.longest
        failure: Failure | None = None
        differs = ""
        try:
            runs.on(kind.make, lambda: runs.schedules >= chunk.last)
        except Found as found:
            failure = found.failure
        except NondeterminismError as error:
            differs = str(error)
        runs.schedules -= chunk.first
        return runs.told(failure, differs)


def sample(kind: Kind, workers: Workers | None, progress: Progress, most: int, runs: Sample) -> None:
    """Run *most* schedules: the first ones here, as *runs*, then in chunks if there are workers."""
    over = False

    def where() -> str:
        return f"of {most:,}"

    def enough() -> bool:
        nonlocal over
        over = runs.schedules >= most or progress.is_over(runs.schedules, where)
        return over or (workers is not None and runs.steps >= ALONE)

    runs.on(kind.make, enough)
    size = max(SLICE // max(runs.longest, 1), 1)
    running: deque[tuple[Chunk, Future[Told]]] = deque()
    begun = runs.schedules
    while workers is not None and not over:
        while begun < most and len(running) < AHEAD:
            chunk = Chunk(begun, min(begun + size, most), runs.longest)
            running.append((chunk, workers.submit(run, kind, chunk)))
            begun = chunk.last
        chunk, future = running[0]
        told = workers.result(future, progress.wait())
        if told is not None:
            running.popleft()
            if kind.make.looks_at_length and chunk.longest != runs.longest:
                chunk = chunk._replace(longest=runs.longest)
                running.appendleft((chunk, workers.submit(run, kind, chunk)))
            else:
                runs.add(told)
        over = runs.schedules >= most or progress.is_over(runs.schedules, where)
    runs.look_at_the_first_again()
