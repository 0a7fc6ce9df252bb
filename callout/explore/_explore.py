"""The front door: searching the schedules of a scenario, and running one of them again."""

from __future__ import annotations

import time
from concurrent.futures import Executor
from contextlib import nullcontext
from typing import Final

from .._core.build import COMPILED, CORE, VARIABLE
from .._core.checks import check_bool, check_int
from .._core.describe import shown
from .._core.errors import ArgumentTypeError, ArgumentValueError, CoreError
from .._core.lifecycle import MAX_CPUS, MAX_HZ
from .._core.state import SEES_READS
from .._worlds.virtual.vm import check_thread
from ._chunks import Kind, sample
from ._outcome import Certificate, Violation
from ._progress import Progress, part_done, stream_for
from ._report import drawn, notes_of
from ._run import MAX_STEPS, Follow, Run, Scenario, Script, run
from ._sampling import Choosers
from ._schedule import Setting, name_of, parse, write
from ._search import Failure, Found, Sample, Search
from ._shrink import shortest
from ._split import Space, new_name, split
from ._story import tell
from ._tree import Leader, Tree
from ._workers import Workers

MAX_BOUND: Final = 1 << 30
MAX_SCHEDULES: Final = 1 << 62
MAX_SECONDS: Final = 1_000_000_000  # what a thread can wait for
STRATEGIES: Final = ("dfs", "random", "pct", "recorded")
MANY: Final = 1_000_000  # schedules of a search, unless told otherwise
SOME: Final = 1000  # and of what is left to chance


def check_core(call: str, *, results: bool = False) -> None:
    """Raise if this is a compiled core that cannot be explored, or not with *results*."""
    why = "" if SEES_READS else "the compiled core cannot be stopped at every step"
    if results and CORE == COMPILED:
        why = "results=True looks at frames, and the compiled core has none"
    if why:
        raise CoreError(
            f"{call}: {why}; set {VARIABLE}=1 in the environment, before callout is imported, for the pure core",
            call=call,
        )


def explore(
    scenario: Scenario,
    *,
    cpus: int = 2,
    hz: int = 1000,
    bound: int | None = 3,
    strategy: str = "dfs",
    reduce: bool = True,
    cells_only: bool = False,
    leaks: bool = True,
    results: bool = False,
    depth: int = 4,
    seed: int = 0,
    schedules: int | None = None,
    seconds: float | None = None,
    steps: int = MAX_STEPS,
    short_paths: bool = True,
    shrink: bool = True,
    executor: Executor | None = None,
    progress: bool | None = None,
) -> Certificate:
    """Run *scenario(vm)* under every schedule with at most *bound* preemptions, or *schedules* of them. Blocks until
    done.

    The scenario is the main thread of a fresh ``VirtualSMP``; it may spawn others and ``vm.settle()``. It may be a
    coroutine function, whose awaits must be callout's own. Violations are: what leaves it, one of its threads or a
    callback; what a ``Slab`` reported, also if that was caught; a thread or task that waits for what never comes, or
    has ended with a lock held; an object of a ``Slab`` that was not freed in the end, unless *leaks* is False; a run
    without end; a CPU that is not in order when its lock is released. With *results* also what no order of the calls
    for a callout explains: what they have returned, and what ran. That judges this engine and not the scenario, and
    takes more time, on CPython 3.11 several times as much. Without *short_paths* every call takes the long way: a short
    one is a different program, so try both.

    With *reduce*, of schedules that differ only in the order of steps which have nothing to do with each other, some
    are left out. *cells_only* says that threads and callbacks share nothing but locks, callouts, what these guard, and
    what ``vm.cell()`` and ``vm.struct()`` have made: then more are. *bound* None is no bound. The search ends after
    *schedules* (1,000,000 unless given) or *seconds*, too; a run of more than *steps* switch points is a livelock.

    *strategy* "random" lets any context go on at each switch point; "pct" has random priorities, for bugs that need
    *depth* steps in a certain order, and no *bound*. Both run 1,000 *schedules* unless told otherwise, the same for the
    same *seed*.

    Of the first schedule that goes wrong a shorter one is made, which ends in an error of the same type and has as few
    preemptions as possible, and that is told as a diagram. Without *shrink* it is reported as it was found.

    *strategy* "recorded" is that of ``Incident.explore()``: first the recorded order, then every schedule that departs
    from it at most *bound* times. It needs a scenario of ``incident()``, runs in one process, and leaves nothing out.

    *executor* is a ``concurrent.futures.Executor`` whose workers do most of the work: a ``ProcessPoolExecutor`` uses
    all cores, and that of a cluster many machines. Its workers must be able to import the scenario: a function of a
    module, or a ``functools.partial`` of one. The verdict and the final states are those of one process. With *reduce*
    and a bound more schedules are run, as a worker hears late of what others have seen; and of several violations
    another may be found first. *schedules* may be exceeded by what the workers had in hand.

    While a search lasts, a line on standard error says how far it has come, if that is a terminal; *progress* says
    whether there is to be one.

    Raises:
        Violation: a schedule goes wrong.
        NondeterminismError: the same choices did not lead to the same run.
        NotModelledError: the first run uses real time, chance, or a real lock, thread, loop or process.
        ArgumentTypeError, ArgumentValueError: before anything is run.
        CoreError: this is the compiled core, and was not compiled to be explored; or it was, and *results* are wanted.
        KeyboardInterrupt: Ctrl-C ends the search.
    """
    check_core("explore", results=results)
    check_thread("explore", scenario)
    check_int("explore", "cpus", cpus, 1, MAX_CPUS)
    check_int("explore", "hz", hz, 1, MAX_HZ)
    if bound is not None:
        check_int("explore", "bound", bound, 0, MAX_BOUND)
    if strategy not in STRATEGIES:
        raise ArgumentValueError(
            f"explore: strategy must be one of {', '.join(map(repr, STRATEGIES))}, not {shown(strategy)}",
            call="explore",
        )
    check_int("explore", "depth", depth, 1, MAX_BOUND)
    check_int("explore", "seed", seed, 0, MAX_SCHEDULES)
    if schedules is not None:
        check_int("explore", "schedules", schedules, 1, MAX_SCHEDULES)
    check_int("explore", "steps", steps, 1, MAX_SCHEDULES)
    for what, value in (
        ("reduce", reduce),
        ("cells_only", cells_only),
        ("leaks", leaks),
        ("results", results),
        ("short_paths", short_paths),
        ("shrink", shrink),
    ):
        check_bool("explore", what, value)
    if seconds is not None and (isinstance(seconds, bool) or not isinstance(seconds, int | float)):
        raise ArgumentTypeError(f"explore: seconds must be a number or None, not {shown(seconds)}", call="explore")
    if seconds is not None and not 0 < seconds <= MAX_SECONDS:
        raise ArgumentValueError(
            f"explore: seconds must be more than 0 and at most {MAX_SECONDS:,}, not {shown(seconds)}; None is no limit",
            call="explore",
        )
    if progress is not None and not isinstance(progress, bool):
        raise ArgumentTypeError(f"explore: progress must be True, False or None, not {shown(progress)}", call="explore")
    if executor is not None and not isinstance(executor, Executor):
        raise ArgumentTypeError(
            f"explore: executor must be a concurrent.futures.Executor or None, not {shown(executor)}"
            f"{'; make one of it' if isinstance(executor, type) else ''}",
            call="explore",
        )
    recorded = strategy == "recorded"
    leads: Leader | None = getattr(scenario, "lead", None) if recorded else None
    if recorded and leads is None:
        raise ArgumentValueError(
            "explore: strategy 'recorded' is for a scenario that incident() has made of a trace", call="explore"
        )
    if recorded and executor is not None:
        raise ArgumentValueError("explore: strategy 'recorded' runs in one process: give no executor", call="explore")
    setting = Setting(cpus, hz, short_paths, name_of(scenario), leaks, results)
    exhausted = False
    failure: Failure | None = None
    runs: Search | Sample
    with Progress(stream_for(progress), seconds) as clock:
        try:
            with nullcontext() if executor is None else Workers(executor, scenario) as workers:
                if strategy == "dfs" or recorded:
                    tree = Tree(bound, reduces=reduce and not recorded, world=not cells_only, leads=leads)
                    runs = search = Search(scenario, setting, steps, tree)
                    most = schedules or MANY
                    if workers is None:
                        exhausted = search.go(
                            most, lambda: clock.is_over(search.schedules, lambda: _where(search.tree))
                        )
                    else:
                        space = Space(new_name(), scenario, setting, steps, bound, reduce, not cells_only)
                        exhausted = split(space, workers, clock, most, search)
                else:
                    runs = picked = Sample(scenario, setting, steps)
                    kind = Kind(scenario, setting, steps, Choosers(strategy, seed, bound, depth))
                    sample(kind, workers, clock, schedules or SOME, picked)
        except Found as found:
            failure = found.failure
    if failure is not None:
        if not shrink:
            follow = Follow(failure.script)
            problem = failure.check(run(scenario, setting, follow, steps).problem)
            preemptions = follow.moment_of(problem).preemptions
            schedule = write(setting, follow.taken)
            raise Violation(schedule, runs.schedules, follow.lanes, preemptions=preemptions) from problem
        shrunk = shortest(
            scenario, setting, failure, steps=steps, reduces=reduce, world=not cells_only, seconds=seconds
        )
        story, ended = tell(scenario, setting, shrunk.choices, steps)
        problem = failure.check(ended.problem)
        schedule = write(setting, shrunk.choices)
        drawing = drawn(story, list(notes_of(problem, schedule, shrunk, runs.schedules)))
        raise Violation(schedule, runs.schedules, shrunk.lanes, drawing, shrunk.preemptions) from problem
    return Certificate(
        schedules=runs.schedules,
        longest=runs.longest,
        bound=None if strategy == "pct" else bound,
        exhausted=exhausted,
        strategy=strategy,
        reduced=reduce and strategy == "dfs",
        steps=runs.steps,
        seconds=time.monotonic() - clock.begun,
        final_states=frozenset(runs.states),
        ran=dict(sorted(runs.ran.items())),
        seed=None if strategy == "dfs" or recorded else seed,
    )


def _where(tree: Tree) -> str:
    """Say where in its tree a search in one process is."""
    return f"about {part_done(tree.nodes):.0%} of the branches known so far"


def replay(
    scenario: Scenario, schedule: str, *, steps: int = MAX_STEPS, leaks: bool = True, results: bool = False
) -> None:
    """Run *scenario* once, under the schedule that a ``Violation`` names. Raises what went wrong.

    The schedule names the number of CPUs, and all else that the choices depend on. A run of more than *steps* switch
    points is a livelock; with *leaks* a leak is an error, and with *results* a result that cannot be, as in
    ``explore()``.

    Raises:
        ArgumentTypeError, ArgumentValueError: it is no schedule; or it fits another scenario than this.
    """
    check_core("replay", results=results)
    check_thread("replay", scenario)
    check_int("replay", "steps", steps, 1, MAX_SCHEDULES)
    check_bool("replay", "leaks", leaks)
    check_bool("replay", "results", results)
    setting, choices = parse(schedule)
    setting.check(setting._replace(name=name_of(scenario)))
    setting = setting._replace(leaks=leaks, results=results)
    script = Script(choices)
    ended: Run = run(scenario, setting, script, steps)
    if ended.problem is not None:
        raise ended.problem
    if len(choices) > len(script.taken):
        raise ArgumentValueError(
            f"replay: the schedule does not fit this scenario: it has {len(choices)} choices, and the run ended, with "
            f"nothing wrong, after {len(script.taken)}; has the scenario changed, or the code?",
            call="replay",
        )
