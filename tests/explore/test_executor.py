"""A search that is split among the workers of an executor ends as it does in one process."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

import pytest

from callout import ArgumentTypeError, ArgumentValueError, CalloutError
from callout.explore import Certificate, NondeterminismError, Violation, _chunks, _progress, _split, explore, replay
from callout.explore._split import Memory, News
from callout.explore._tree import Key, Node, Seen
from callout.testing import VirtualSMP

from . import scenarios

P = ParamSpec("P")
T = TypeVar("T")

ROOT: Final = Path(__file__).parents[2]
BOUNDS: Final = [0, 1, 2, 3, None]
SEEDS: Final = (0, 1, 3, 8, 17, 19, 23)


class Faraway(Executor):
    """An executor that calls at once, and pickles all that goes to the function and comes from it.

    Its calls have the memories of several processes in turn.
    """

    def __init__(self, processes: int = 2) -> None:
        self.calls = 0
        self._memories = [Memory() for _ in range(processes)]

    def submit(self, func: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call a function."""
        future: Future[T] = Future()
        here = _split.MEMORY
        _split.MEMORY = self._memories[self.calls % len(self._memories)]
        self.calls += 1
        try:
            far_args, far_kwargs = _there_and_back((args, kwargs))
            future.set_result(_there_and_back(func(*far_args, **far_kwargs)))
        except Exception as error:
            future.set_exception(error)
        finally:
            _split.MEMORY = here
        return future


def _there_and_back(it: T) -> T:
    result: T = pickle.loads(pickle.dumps(it))  # noqa: S301 - our own
    return result


@pytest.fixture
def _in_small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Split every search at once, into parts of a few schedules."""
    monkeypatch.setattr(_split, "ALONE", 1)
    monkeypatch.setattr(_split, "SLICE", 100)
    monkeypatch.setattr(_chunks, "ALONE", 1)
    monkeypatch.setattr(_chunks, "SLICE", 100)


@pytest.fixture(scope="module")
def pool() -> Iterator[Executor]:
    """Give two processes, which can import the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path, str(ROOT)])
        with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as executor:
            yield executor


def split_search(seed: int, bound: int | None, *, reduce: bool = True) -> tuple[Certificate, Certificate]:
    """Explore a random program in one process and in parts; return both certificates."""
    scenario = partial(scenarios.generated, seed)
    options: dict[str, Any] = {"cpus": 1, "bound": bound, "cells_only": True, "reduce": reduce, "schedules": 400}
    one = explore(scenario, **options)
    return one, explore(scenario, **options | {"schedules": 4000}, executor=Faraway())


@pytest.mark.usefixtures("_in_small_parts")
@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_the_same_states_in_parts(seed: int, bound: int | None) -> None:
    """Random programs end in the same states, whatever the bound."""
    one, parts = split_search(seed, bound)

    assert one.exhausted
    assert parts.exhausted
    assert parts.final_states == one.final_states


@pytest.mark.usefixtures("_in_small_parts")
@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("seed", [1, 3, 8])
def test_without_the_reduction_every_schedule_is_run_once(seed: int, bound: int | None) -> None:
    """Then the counts are those of one process, too."""
    one, parts = split_search(seed, bound, reduce=False)

    if one.exhausted:
        assert parts == one
    assert parts.final_states >= one.final_states


# -- mutants -----------------------------------------------------------------------------------------------------------


def asks_the_top_only(patch: pytest.MonkeyPatch) -> None:
    """Drop what a part asks of the nodes that are not its own."""
    real = _split.Split._handle

    def handle(self: _split.Split, piece: _split.Piece, done: _split.Done) -> None:
        real(self, piece, done._replace(asked=[set() for _ in done.asked]))

    patch.setattr(_split.Split, "_handle", handle)


def forgets_the_rest(patch: pytest.MonkeyPatch) -> None:
    """Take a part that was cut short for one that has come to its end."""
    real = _split.Split._handle

    def handle(self: _split.Split, piece: _split.Piece, done: _split.Done) -> None:
        real(self, piece, done._replace(stack=[], trail=None))

    patch.setattr(_split.Split, "_handle", handle)


def remembers_what_was_handed_on(patch: pytest.MonkeyPatch) -> None:
    """Take a node for searched to the end when one of its owners is done with it."""
    real = _split.bare

    def bare(node: Node, chosen: str | None = None) -> Node:
        out = real(node, chosen)
        out.key = node.key
        return out

    patch.setattr(_split, "bare", bare)


def remembers_no_debts(patch: pytest.MonkeyPatch) -> None:
    """Tell the others what was searched to the end, and not what it asks of the nodes above."""
    real = Memory.tell

    def tell(self: Memory, seen: dict[Key, Seen]) -> News | None:
        return real(self, {key: its._replace(owes=set()) for key, its in seen.items()})

    patch.setattr(Memory, "tell", tell)


MUTANTS: Final = [
    (asks_the_top_only, 3, None, 100),
    (asks_the_top_only, 23, 2, 100),
    (forgets_the_rest, 23, None, 100),
    (remembers_what_was_handed_on, 17, 3, 30),
    (remembers_no_debts, 17, 2, 100),
]


@pytest.mark.usefixtures("_in_small_parts")
@pytest.mark.parametrize(("mutant", "seed", "bound", "steps"), MUTANTS)
def test_a_mistake_of_the_split_shows_in_the_states(
    mutant: Callable[[pytest.MonkeyPatch], None],
    seed: int,
    bound: int | None,
    steps: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With one of these a part of the search is lost, and without it none is."""
    monkeypatch.setattr(_split, "SLICE", steps)
    one, parts = split_search(seed, bound)
    assert parts.final_states == one.final_states

    mutant(monkeypatch)
    one, parts = split_search(seed, bound)
    assert parts.final_states < one.final_states


# -- what is picked by chance ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_in_small_parts")
@pytest.mark.parametrize("strategy", ["random", "pct"])
def test_a_sample_is_the_same_one_in_chunks(strategy: str) -> None:
    """Certificates are equal, and so are schedule and number of what goes wrong."""
    executor = Faraway()
    one = explore(partial(scenarios.generated, 1), strategy=strategy, schedules=150)
    parts = explore(partial(scenarios.generated, 1), strategy=strategy, schedules=150, executor=executor)
    assert parts == one
    assert executor.calls > 10

    wrong = []
    for options in ({}, {"executor": executor}):
        with pytest.raises(Violation) as caught:
            explore(partial(scenarios.loses, 4), cpus=1, strategy=strategy, seed=2, shrink=False, **options)  # type: ignore[arg-type]  # an executor
        wrong.append(str(caught.value))
    assert wrong[0] == wrong[1]


def test_a_chunk_that_was_told_a_wrong_length_is_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """PCT looks at the longest run so far; chunks that were begun too early do not count."""
    monkeypatch.setattr(_chunks, "ALONE", 1)
    monkeypatch.setattr(_chunks, "SLICE", 40)
    executor = Faraway()
    scenario = partial(scenarios.generated, 1)

    assert explore(scenario, strategy="pct", schedules=40, executor=executor) == explore(
        scenario, strategy="pct", schedules=40
    )


# -- violations --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_in_small_parts")
@pytest.mark.parametrize("bound", [2, None])
def test_what_goes_wrong_in_a_worker_is_told_as_if_it_had_gone_wrong_here(bound: int | None) -> None:
    """It is shrunk, has a diagram, and its schedule shows it again; the next search finds the same."""
    scenario = partial(scenarios.loses, 4)
    found = []
    for _ in range(2):
        with pytest.raises(Violation) as caught:
            explore(scenario, cpus=1, bound=bound, cells_only=True, executor=Faraway())
        found.append(caught.value)
    violation = found[0]

    assert str(found[1]) == str(violation)
    assert "3 is less than 4" in violation.diagram
    assert "minimal: " in violation.diagram
    with pytest.raises(AssertionError, match="is less than 4"):
        replay(scenario, violation.schedule)


@pytest.mark.usefixtures("_in_small_parts")
def test_an_error_that_cannot_be_pickled_stays_in_its_worker() -> None:
    """What is reported is the same error, from a run of this process."""
    with pytest.raises(Violation) as caught:
        explore(scenarios.raises, cpus=1, cells_only=True, bound=None, executor=Faraway())

    assert isinstance(caught.value.__cause__, scenarios.LocalError)


# -- limits ------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_in_small_parts")
def test_the_limit_of_schedules_holds_for_all_parts_together() -> None:
    """It may be exceeded by what one part has run, and then nothing more is begun."""
    scenario = partial(scenarios.counts, 3, 2)
    certificate = explore(scenario, cpus=1, schedules=50, reduce=False, executor=Faraway())

    assert not certificate.exhausted
    assert 50 <= certificate.schedules < 60


class Forgotten(Executor):
    """An executor that never comes to what it is given."""

    def __init__(self) -> None:
        self.futures: list[Future[Any]] = []

    def submit(self, func: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Keep it."""
        future: Future[T] = Future()
        self.futures.append(future)
        return future

    def monotonic(self) -> float:
        """Be the clock: with the second thing that it was given an hour has gone by."""
        return 3600.0 if len(self.futures) > 1 else 0.0


@pytest.mark.parametrize("strategy", ["dfs", "random"])
def test_a_search_without_time_left_waits_for_no_worker(strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what no worker has begun is cancelled."""
    executor = Forgotten()
    monkeypatch.setattr(_progress, "time", executor)
    certificate = explore(
        partial(scenarios.counts, 3, 2),
        cpus=1,
        reduce=False,
        strategy=strategy,
        schedules=100_000,
        seconds=10,
        executor=executor,
    )

    assert not certificate.exhausted
    assert certificate.schedules > 10
    assert len(executor.futures) > 1
    assert all(future.cancelled() for future in executor.futures)


# -- what can go wrong with an executor --------------------------------------------------------------------------------


class Interrupted(Future[Any]):
    """A future that cannot be waited for."""

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Be interrupted."""
        raise KeyboardInterrupt


class Failing(Forgotten):
    """An executor whose workers fail."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def submit(self, func: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Fail, but for the first call."""
        if isinstance(self.error, KeyboardInterrupt):
            future: Future[T] = Interrupted()
            self.futures.append(future)
        else:
            future = super().submit(func, *args, **kwargs)
            if len(self.futures) > 1:
                future.set_exception(self.error)
        return future


@pytest.mark.usefixtures("_in_small_parts")
@pytest.mark.parametrize("error", [KeyboardInterrupt(), ZeroDivisionError("a bug"), TimeoutError("a bug, too")])
def test_ctrl_c_and_an_error_of_a_worker_end_the_search(error: BaseException) -> None:
    """They leave explore() as they are, and what no worker has begun is cancelled."""
    executor = Failing(error)
    with pytest.raises(type(error), match=str(error) or None):
        explore(partial(scenarios.counts, 3, 2), cpus=1, executor=executor)

    assert executor.futures
    assert all(future.done() for future in executor.futures)


def test_a_scenario_that_no_other_process_can_import_is_refused() -> None:
    """Before anything is run, by an executor of processes; and as soon as another one fails with it."""
    runs: list[int] = []

    def scenario(vm: VirtualSMP) -> None:
        runs.append(1)

    with ProcessPoolExecutor(1) as executor:
        for wrong in (scenario, lambda vm: runs.append(1), partial(scenario)):
            with pytest.raises(ArgumentTypeError, match="give a function of a module") as caught:
                explore(wrong, executor=executor)
            assert caught.value.call == "explore"
    assert runs == []


@pytest.mark.usefixtures("_in_small_parts")
def test_what_another_executor_cannot_pickle_is_refused_when_it_fails() -> None:
    """Some can pickle a lambda, so that it is tried. Others pickle in submit()."""

    class Eager(Forgotten):
        def submit(self, func: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
            _there_and_back((args, kwargs))
            return super().submit(func, *args, **kwargs)

    for executor in (Faraway(), Eager()):
        with pytest.raises(ArgumentTypeError, match="give a function of a module"):
            explore(lambda vm: scenarios.counts(3, 2, vm), cpus=1, executor=executor)


def test_an_executor_that_was_shut_down_is_refused() -> None:
    """Whether it was before the search, or is during it."""
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    with pytest.raises(ArgumentValueError, match=r"takes no work.*with block"):
        explore(partial(scenarios.counts, 2, 1), executor=executor)

    class Shut(Forgotten):
        def submit(self, func: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
            future = super().submit(func, *args, **kwargs)
            future.cancel()
            return future

    with pytest.raises(CalloutError, match="shut down, or has cancelled"):
        explore(partial(scenarios.counts, 3, 3), cpus=1, reduce=False, executor=Shut())


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"executor": 3}, ArgumentTypeError),
        ({"executor": ThreadPoolExecutor}, ArgumentTypeError),
        ({"executor": False}, ArgumentTypeError),
        ({"progress": 1}, ArgumentTypeError),
        ({"progress": "yes"}, ArgumentTypeError),
    ],
)
def test_wrong_arguments_are_refused_before_anything_runs(wrong: dict[str, Any], error: type[CalloutError]) -> None:
    """Each with the name of the argument."""
    runs: list[int] = []
    with pytest.raises(error, match=f"explore: {next(iter(wrong))} must be"):
        explore(lambda vm: runs.append(1), **wrong)
    assert runs == []


# -- real executors ----------------------------------------------------------------------------------------------------


def test_processes_find_the_same_states(pool: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the reduction and without, with a bound and without; and they run the same sample."""
    monkeypatch.setattr(_split, "ALONE", 1)
    monkeypatch.setattr(_chunks, "ALONE", 1)
    scenario = partial(scenarios.generated, 17)
    for bound, reduce in ((3, True), (None, True), (1, False)):
        one = explore(scenario, cpus=1, bound=bound, reduce=reduce, cells_only=True)
        parts = explore(scenario, cpus=1, bound=bound, reduce=reduce, cells_only=True, executor=pool)
        assert parts.exhausted
        assert parts.final_states == one.final_states
        if bound is None or not reduce:
            assert parts == one
    assert explore(scenario, strategy="pct", schedules=300, executor=pool) == explore(
        scenario, strategy="pct", schedules=300
    )


def test_processes_find_the_same_violation(pool: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what does something else in another process is not deterministic."""
    monkeypatch.setattr(_split, "ALONE", 1)
    found = []
    for executor in (pool, Faraway()):
        with pytest.raises(Violation) as caught:
            explore(partial(scenarios.loses, 4), cpus=1, bound=None, executor=executor)
        found.append(str(caught.value))
    assert found[0] == found[1]

    with pytest.raises(NondeterminismError, match=r"at choice|switch point"):
        explore(partial(scenarios.differs, os.getpid()), cpus=1, executor=pool)


def test_ctrl_c_ends_a_search_in_processes(pool: Executor, tmp_path: Path) -> None:
    """The processes can be used again."""
    scenario = partial(scenarios.interrupts, os.getpid(), str(tmp_path / "once"))
    with pytest.raises(KeyboardInterrupt):
        explore(scenario, cpus=1, reduce=False, bound=None, executor=pool)

    assert pool.submit(abs, -1).result() == 1


def test_threads_take_turns() -> None:
    """An executor of threads works, though it is no faster."""
    scenario = partial(scenarios.counts, 2, 3)
    with ThreadPoolExecutor(3) as executor:
        parts = explore(scenario, cpus=1, reduce=False, bound=2, executor=executor)

    assert parts == explore(scenario, cpus=1, reduce=False, bound=2)


SCRIPT: Final = """\
import os, sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

sys.path.append(sys.argv[1])
from callout import CalloutError
from callout.explore import explore
from tests.explore import scenarios

with ProcessPoolExecutor(2, mp_context=get_context("fork")) as executor:
    scenario = partial(scenarios.counts, 2, 4)
    assert explore(scenario, cpus=1, bound=None, executor=executor, reduce=False, schedules=1000).schedules >= 1000
    try:
        explore(partial(scenarios.ends, os.getpid()), cpus=1, reduce=False, executor=executor)
    except CalloutError as error:
        print(error)
    try:
        explore(scenario, executor=executor)
    except CalloutError as error:
        print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
def test_a_worker_that_is_killed_is_told() -> None:
    """In the search that it was working for, and in the next one."""
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(ROOT)], capture_output=True, text=True, check=True, timeout=120
    )

    assert run.stdout.count("explore: a worker of the executor has ended before its part of the search had") == 2


def test_the_script_of_the_manual_runs(tmp_path: Path) -> None:
    """The script that is printed there, saved in a file."""
    text = (ROOT / "docs" / "testing.md").read_text("utf-8")
    (script,) = re.findall(r"^```python\n((?:(?!^```).)*ProcessPoolExecutor.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (tmp_path / "count.py").write_text(script, "utf-8")

    run = subprocess.run(
        [sys.executable, "count.py"], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=120
    )

    states = [f"returned {total}; total={total}" for total in range(2, 7)]
    assert run.stdout == f"328 {states}\n"


def test_a_cluster_finds_the_same_states(monkeypatch: pytest.MonkeyPatch) -> None:
    """With dask.distributed on this machine; ``pip install distributed`` to have this test run."""
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr(_split, "ALONE", 1)
    scenario = partial(scenarios.counts, 2, 3)
    one = explore(scenario, cpus=1, bound=None)
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
        client.get_executor() as executor,
    ):
        parts = explore(scenario, cpus=1, bound=None, executor=executor)

    assert parts == one
