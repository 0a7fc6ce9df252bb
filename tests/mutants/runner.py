"""Running mutants: each in a process of its own, against what executes the changed statement, until something fails.

The process is a child of one that has imported everything and collected all tests, so it begins at once. A killer that
does not end in ten times its time and some seconds has failed as well: most lost wake-ups show in that way.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import select
import signal
import time
from bisect import bisect_left
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import Final, NoReturn

from tests.mutants import plant
from tests.mutants.killers import SECONDS, Killer, fresh
from tests.mutants.operators import Mutation

MEMORY: Final = 6 << 30  # bytes: some mutants allocate for ever
# Seconds, besides ten times the usual ones.
PATIENCE: Final = {"recording": 5.0, "fresh": 120.0, "explored": 2.5 * SECONDS}
OTHERS: Final = 12.0
SURVIVED: Final = "survived"

Work = Callable[[Iterable[Killer]], None]


@dataclass(frozen=True)
class Result:
    """What became of a mutant."""

    name: str
    kind: str  # of what killed it; "hang"; "survived"; "unreached": nothing executes it
    killer: str
    why: str
    tried: int
    seconds: float


class _Child:
    """A process in which one mutant lives."""

    def __init__(
        self, mutation: Mutation, killers: Sequence[Killer], into: dict[plant.Key, list[FunctionType]]
    ) -> None:
        self.mutation = mutation
        self.killers = killers
        self.begun = time.monotonic()
        self.deadline = self.begun + 60
        self.at = 0
        self.text = b""
        self.out, inner = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            _live(mutation, killers, into, inner)
        os.close(inner)

    def kill(self) -> None:
        """End it, with what it has started."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:  # it has not got its own group yet
            os.kill(self.pid, signal.SIGKILL)

    def result(self, kind: str, killer: str, why: str) -> Result:
        """Say what became of it."""
        return Result(self.mutation.name, kind, killer, why, self.at, round(time.monotonic() - self.begun, 2))

    def heard(self) -> Result | None:
        """Read what it has to say; return the result when there is one."""
        data = os.read(self.out, 65536)
        if not data:
            name = self.killers[self.at].name if self.killers else ""
            return self.result("crash", name, "the process died")
        self.text += data
        *lines, self.text = self.text.split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "begin" in message:
                self.at = message["begin"]
                self.deadline = time.monotonic() + message["limit"]
            else:
                return self.result(message["kind"], message["killer"], message["why"])
        return None

    def overdue(self) -> Result:
        """Say that it hangs."""
        return self.result("hang", self.killers[self.at].name, "does not end")


def _live(
    mutation: Mutation, killers: Sequence[Killer], into: dict[plant.Key, list[FunctionType]], out: int
) -> NoReturn:
    """Be the child."""
    try:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        null = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(null, number)

        def tell(**message: object) -> None:
            os.write(out, json.dumps(message).encode() + b"\n")

        code = plant.compiled(mutation.module, mutation.tree())
        if not plant.plant(code, into):
            tell(kind="same", killer="", why="the compiled code is the same")
            os._exit(0)
        for index, killer in enumerate(killers):
            tell(begin=index, limit=PATIENCE.get(killer.kind, OTHERS) + 10 * _usual.get(killer.name, 0))
            why = killer.failure()
            if why:
                tell(kind=killer.kind, killer=killer.name, why=why[:300])
                os._exit(0)
        tell(kind=SURVIVED, killer="", why="")
    except BaseException as error:
        os.write(out, json.dumps({"kind": "crash", "killer": "", "why": repr(error)}).encode() + b"\n")
    finally:
        os._exit(0)


_usual: dict[str, float] = {}


def in_turn(rows: Iterable[tuple[float, str]], killers: Mapping[str, Killer]) -> Iterator[tuple[float, str]]:
    """Yield the rows, one of each family (a test function; all recordings are one) before the second of any.

    The cases of one function mostly miss the same mutants, and there may be hundreds of them.
    """
    families: dict[str, deque[tuple[float, str]]] = {}
    for row in rows:
        families.setdefault(killers[row[1]].family, deque()).append(row)
    while families:
        for name in list(families):
            yield families[name].popleft()
            if not families[name]:
                del families[name]


def run(
    mutations: Sequence[Mutation],
    killers: Mapping[str, Killer],
    reach: Mapping[str, tuple[float, list[int]]],
    *,
    workers: int,
    budget: float,
    hints: Mapping[str, str],
    found: Callable[[Result], None],
) -> None:
    """Run the mutants, *workers* at a time, each for at most *budget* seconds of what its killers usually take.

    *hints*: which killer has killed it the last time. *found* is called with each result.
    """
    into = plant.engine_functions()
    by_mark: dict[int, list[tuple[float, str]]] = defaultdict(list)
    for name, (seconds, marks) in reach.items():
        if name in killers:
            _usual[name] = seconds
            for mark in marks:
                by_mark[mark].append((seconds, name))
    kills: Counter[str] = Counter()
    places = plant.offsets()
    starts = sorted(places.values())

    def cost(seconds: float, name: str, module: str) -> float:
        """Return what sorts the killers: the quick, those that have killed before, those that are about the module."""
        marks = reach[name][1]
        begin = places[module]
        end = starts[starts.index(begin) + 1]
        share = (bisect_left(marks, end) - bisect_left(marks, begin)) / len(marks)
        return (seconds + 0.001) / (1 + kills[name]) / (0.02 + share)

    def chosen(mutation: Mutation) -> Iterator[Killer]:
        yield from fresh(mutation)
        left = budget
        rows = by_mark.get(places[mutation.module] + mutation.line, [])
        if (hint := hints.get(mutation.name)) in killers:
            assert hint is not None
            yield killers[hint]
        costs = sorted(rows, key=lambda row: (cost(row[0], row[1], mutation.module), row[1]))
        for seconds, name in in_turn(costs, killers):
            if seconds <= left:
                left -= seconds
                yield killers[name]

    gc.collect()
    gc.freeze()
    waiting = list(reversed(mutations))
    children: dict[int, _Child] = {}
    try:
        while waiting or children:
            while waiting and len(children) < workers:
                mutation = waiting.pop()
                able = list(chosen(mutation))
                if not able:
                    found(Result(mutation.name, "unreached", "", "nothing executes it", 0, 0.0))
                    continue
                child = _Child(mutation, able, into)
                children[child.out] = child
            if not children:
                break
            until = min(child.deadline for child in children.values())
            ready, _, _ = select.select(list(children), [], [], max(0, until - time.monotonic()))
            for child in [children[number] for number in ready] or list(children.values()):
                if child.out in ready:
                    result = child.heard()
                elif child.deadline <= time.monotonic():
                    result = child.overdue()
                else:
                    continue
                if result is not None:
                    child.kill()
                    os.waitpid(child.pid, 0)
                    os.close(child.out)
                    del children[child.out]
                    kills[result.killer] += result.kind not in (SURVIVED, "crash")
                    found(result)
    finally:
        for child in children.values():
            child.kill()
            os.waitpid(child.pid, 0)
