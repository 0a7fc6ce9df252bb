"""What a trace tells, to a function and in a file, and that nothing but time is different while there is one."""

from __future__ import annotations

import errno
import json
import math
import os
import random
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
import trio
import trio.testing

from callout import (
    ArgumentTypeError,
    ArgumentValueError,
    BusyError,
    Callout,
    CalloutSystem,
    ClosedError,
    TraceEvent,
    TraceKind,
    callout_barrier,
    callout_dequeue,
    callout_drain_async,
    callout_init,
    callout_quiesce,
    callout_reset,
    callout_reset_on,
    callout_stop,
    callout_terminate,
    callout_terminate_sync,
    cli,
    close_all_soon,
    open_callouts,
)
from callout._core.counters import stats
from callout._core.cpu import CLOSE, SYNC, T_CLOSE
from callout._core.drain import begin
from callout._core.lifecycle import trace_with
from callout._worlds.trio import tracing
from callout.testing import Slab, VirtualSMP


@pytest.fixture
def autojump_clock() -> trio.testing.MockClock:
    """Give a clock that jumps at once."""
    return trio.testing.MockClock(autojump_threshold=0)


def ignore(*args: object) -> None:
    """Be a callback that does nothing."""


def kinds(events: list[TraceEvent]) -> list[str]:
    """Return what has happened."""
    return [event.kind.value for event in events]


@pytest.mark.trio
async def test_the_life_of_a_callout(autojump_clock: trio.testing.MockClock) -> None:
    """Each step of it is an event, in order, with its time on the system's clock and what it was scheduled for."""
    events: list[TraceEvent] = []
    async with open_callouts() as system:
        begun = system.current_time()
        with system.tracing(events.append) as trace:
            c = system.call_later(5, ignore, "a secret", name="idle")
            c.reset(3)
            await trio.sleep(4)
            c.reset(1)
            c.stop()
            c.stop()
            await c.drain()
            await c.aclose()
            c.reset(1)

        assert kinds(events) == [
            *("armed", "rearmed", "dequeued", "started", "finished", "armed", "stopped", "not stopped"),
            *("drained", "drained", "closed", "refused"),
        ]
        assert [event.time - begun for event in events] == [0, 0, 3, 3, 3, *[4] * 7]
        assert [event.deadline and event.deadline - begun for event in events[:3]] == [5, 3, None]
        assert {(event.name, event.serial, event.cpu) for event in events} == {("idle", 1, 0)}
        assert {event.function for event in events[:-1]} == {"ignore"}
        assert (trace.events, trace.dropped) == (12, 0)
        assert "secret" not in repr(events)


@pytest.mark.trio
async def test_after_the_block_nothing_is_told() -> None:
    """Nor after stop(): then every call takes the short way again."""
    events: list[TraceEvent] = []
    async with open_callouts() as system:
        cpu = system._machine.cpus[0]
        c = system.callout(ignore)
        with system.tracing(events.append) as trace:
            assert cpu.plain is None
            c.reset(5)
            trace.stop()
            trace.stop()
            assert cpu.plain is cpu
            c.reset(6)
        c.reset(7)

        assert kinds(events) == ["armed"]
        with system.tracing(events.append):
            c.reset(8)
        assert kinds(events) == ["armed", "rearmed"]


@pytest.mark.trio
async def test_the_function_is_called_while_the_block_is_open(autojump_clock: trio.testing.MockClock) -> None:
    """Soon after an event, on CPU 0's loop, with the system current; not only at the end."""
    events: list[TraceEvent] = []
    async with open_callouts() as system:
        with system.tracing(events.append):
            system.call_later(5, ignore)
            await trio.sleep(1)

            assert kinds(events) == ["armed"]


@pytest.mark.trio
async def test_a_function_that_causes_events_leaves_the_loop_to_its_tasks() -> None:
    """What it arms itself is handed over later, when the tasks of the loop have had their turns, and so on."""
    async with open_callouts() as system:
        c = system.callout(ignore)
        seen: list[TraceKind] = []

        def arm_again(event: TraceEvent) -> None:
            seen.append(event.kind)
            c.reset(100)

        with system.tracing(arm_again):
            c.reset(100)
            for _ in range(5):
                await trio.lowlevel.checkpoint()

        assert seen[0] is TraceKind.ARMED
        assert set(seen[1:]) == {TraceKind.REARMED}


def test_what_was_closed_before_is_not_closed_again() -> None:
    """Of a set of which one was closed before, one event comes for each that it closes."""
    with VirtualSMP() as vm:
        a, b = vm.callout(ignore), vm.callout(ignore)
        assert a.close_soon(ignore)
        told: list[TraceKind] = []
        trace_with(vm.machine, Told(told))
        assert close_all_soon([a, b], ignore)

        assert told == [TraceKind.CLOSED]
        assert stats(vm.machine).total.closed == 2


def test_each_closing_and_each_stop_is_told_once() -> None:
    """Whichever call has done it, of an idle callout or of one whose run stands at its lock, and however often."""
    with VirtualSMP(free_clock=False, checking=False) as vm:
        told: list[TraceKind] = []
        lock = vm.mutex("m")
        idle, pending, gone = (vm.callout(ignore) for _ in range(3))
        held, late = (vm.callout(ignore, lock=lock) for _ in range(2))
        with lock:
            held.reset(0.001)
            vm.tick()
            pending.reset(5)
            trace_with(vm.machine, Told(told))
            for _ in range(2):
                callout_terminate_sync(idle)
                callout_dequeue(pending)
                callout_dequeue(gone, close=True)
                begin("callout_terminate", held, CLOSE, vm.platform.thread_waiter)

            assert told.count(TraceKind.CLOSED) == 3
            assert told.count(TraceKind.STOPPED) == 1
            assert told.count(TraceKind.DRAINED) == 4
            assert told[-1] is TraceKind.DRAINED
        vm.tick()
        with lock:
            late.reset(0.001)
            vm.tick()
            begin("callout_quiesce", late, SYNC | T_CLOSE, vm.platform.thread_waiter)
        vm.tick()

        assert told.count(TraceKind.CLOSED) == stats(vm.machine).total.closed == 4


class Told:
    """A tracer that keeps the kinds of events."""

    def __init__(self, kinds: list[TraceKind]) -> None:
        self.kinds = kinds

    def note(self, kind: TraceKind, cpu: object, c: object, func: object, when: int | None, detail: str | None) -> None:
        """See ``Tracer``."""
        self.kinds.append(kind)


@pytest.mark.trio
async def test_errors_and_moves_are_told() -> None:
    """A callback that raises is an error after its end; one that changes its CPU has migrated to the new one."""
    events: list[TraceEvent] = []
    failed = trio.Event()

    def raises() -> None:
        raise ValueError

    async with open_callouts(cpus=2, on_error=lambda error, c: failed.set()) as system:
        with system.tracing(events.append):
            c = system.call_later(100, ignore, cpu=0)
            callout_reset_on(c, 100_000, ignore, None, 1)
            c.stop()
            system.call_later(0, raises, cpu=0)
            await failed.wait()

        moved = [event for event in events if event.serial == 1]
        assert [(event.kind, event.cpu) for event in moved] == [
            (TraceKind.ARMED, 0),
            (TraceKind.MIGRATED, 1),
            (TraceKind.REARMED, 1),
            (TraceKind.STOPPED, 1),
        ]
        assert kinds([event for event in events if event.serial == 2]) == [
            *("armed", "dequeued", "started", "finished", "error"),
        ]


@pytest.mark.trio
async def test_where_it_was_done_is_told_if_asked_for(autojump_clock: trio.testing.MockClock) -> None:
    """File, line and function of what was called from the user's code; nothing of what a loop does."""
    events: list[TraceEvent] = []
    async with open_callouts() as system:
        with system.tracing(events.append, where=True):
            system.call_later(5, ignore).stop()
            system.call_later(1, ignore)
            await trio.sleep(2)

        assert kinds(events) == ["armed", "stopped", "armed", "dequeued", "started", "finished"]
        for event in events[:3]:
            assert event.where is not None
            assert "in test_where_it_was_done_is_told_if_asked_for()" in event.where
        assert {event.where for event in events[3:]} == {None}


@pytest.mark.trio
async def test_a_file_is_a_chrome_trace(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """A track for each CPU, a slice for each run that begins and ends there, and a mark for all else."""
    path = tmp_path / "trace.json"
    async with open_callouts() as system:
        with system.tracing(path) as trace:
            system.call_later(2, autojump_clock.jump, 3, name="slow")
            system.call_later(20, ignore).stop()
            await trio.sleep(10)
        found: list[dict[str, Any]] = json.loads(path.read_text("ascii"))["traceEvents"]

        assert [each["ph"] for each in found] == ["M", "M", "i", "i", "i", "i", "B", "E"]
        assert found[1]["args"] == {"name": "cpu 0"}
        begins, ends = found[-2:]
        assert begins["name"] == "slow (MockClock.jump)"
        assert ends["ts"] - begins["ts"] == pytest.approx(3e6)
        assert {each["args"]["cpu"] for each in found[2:]} == {0}
        check_format(path)
        assert (trace.events, trace.dropped) == (6, 0)


@pytest.mark.trio
async def test_the_last_events_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """Of too many the first are dropped and counted; the end of a run whose beginning is gone is a mark."""
    monkeypatch.setattr(tracing, "MOST", 3)
    path = tmp_path / "trace.json"
    async with open_callouts() as system:
        with system.tracing(str(path)) as trace:
            system.call_later(1, ignore)
            await trio.sleep(2)
            system.call_later(20, ignore).stop()

        assert (trace.events, trace.dropped) == (6, 3)
        assert json.loads(path.read_text("ascii"))["otherData"]["dropped"] == 3
        found = check_format(path)
        assert [each["name"].split()[0] for each in found if each["ph"] != "M"] == ["finished", "armed", "stopped"]


@pytest.mark.trio
async def test_a_function_that_fails_ends_the_trace(autojump_clock: trio.testing.MockClock) -> None:
    """Its exception is treated as a callback's, once, and the system works on, untraced."""
    errors: list[Exception] = []

    def fails(event: TraceEvent) -> None:
        raise ValueError(event.kind.value)

    async with open_callouts(on_error=lambda error, c: errors.append(error)) as system:
        ran = trio.Event()
        with system.tracing(fails) as trace:
            system.call_later(1, ran.set)
            await ran.wait()
            assert system._machine.trace is None
            system.call_later(1, ignore)

        assert [str(error) for error in errors] == ["armed"]
        assert trace.dropped == trace.events - 1


@pytest.mark.trio
async def test_what_cannot_be_traced_is_refused(tmp_path: Path) -> None:
    """A second trace, a sink that is none, a file in no folder, a closed system: nothing has changed then."""

    async def asynchronous(event: TraceEvent) -> None:
        """Be no plain function."""

    async with open_callouts() as system:
        for wrong in (None, 5, asynchronous):
            with pytest.raises(ArgumentTypeError, match=r"^tracing: .* plain function"):
                system.tracing(wrong).__enter__()  # type: ignore[arg-type]  # on purpose
        with pytest.raises(FileNotFoundError):
            system.tracing(tmp_path / "none" / "trace.json").__enter__()
        with pytest.raises(ArgumentValueError, match=r"^tracing: no file can be called"):
            system.tracing("a\0b").__enter__()
        with pytest.raises(ArgumentTypeError, match=r"^tracing: sink is called with an event, and .* takes \(\)"):
            system.tracing(lambda: None).__enter__()  # type: ignore[arg-type, misc]  # on purpose
        with pytest.raises(ArgumentTypeError, match=r"^tracing: where must be True or False"):
            system.tracing(ignore, where=1).__enter__()  # type: ignore[arg-type]  # on purpose
        with system.tracing(ignore), pytest.raises(BusyError, match="traced already"):
            system.tracing(ignore).__enter__()
        assert system._machine.trace is None
        late = system.tracing(ignore)
    with pytest.raises(ClosedError, match="tracing"):
        late.__enter__()


@pytest.mark.trio
async def test_a_trace_may_outlive_its_system() -> None:
    """The end of the system stops what is pending, which is told, and the block can be left afterwards."""
    events: list[TraceEvent] = []
    async with open_callouts() as system:
        block = system.tracing(events.append)
        block.__enter__()
        system.call_later(100, ignore)
    block.__exit__(None, None, None)

    assert kinds(events) == ["armed", "stopped"]


def program(system: CalloutSystem, seed: int) -> list[object]:
    """Do a hundred things with three callouts, and return what each call has returned."""
    choose = random.Random(seed)
    callouts = [Callout() for _ in range(3)]
    for c in callouts:
        callout_init(c, 1)
    results: list[object] = []
    for _ in range(100):
        c = choose.choice(callouts)
        what = choose.randrange(6)
        if what == 0:
            results.append(callout_stop(c))
        elif what == 1:
            results.append(c.stop())
        elif what == 2:
            results.append(c.reset(choose.randrange(1, 100), ignore))
        elif what == 3:
            results.append(c.deadline)
        else:
            results.append(callout_reset(c, choose.randrange(100_000), ignore, None))
    return results


@pytest.mark.parametrize("seed", range(5))
def test_results_are_the_same_while_traced(seed: int) -> None:
    """The long way returns what the short paths return, and counts the same."""

    async def main(traced: bool) -> tuple[object, ...]:
        async with open_callouts() as system:
            if traced:
                with system.tracing(ignore):
                    results = program(system, seed)
            else:
                results = program(system, seed)
            total = system.stats().total
            return results, total.armed, total.rearmed, total.stopped, total.pending

    plain, traced = (trio.run(main, each, clock=trio.testing.MockClock()) for each in (False, True))

    assert plain == traced


# -- the format --------------------------------------------------------------------------------------------------------

# "Trace Event Format", by the authors of Chrome's viewer, which Perfetto reads, too.
NAMES_OF_METADATA: Final = {"process_name", "thread_name"}


def check_format(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file; fail if one of them is not as the format wants them."""
    whole = json.loads(path.read_bytes())
    assert whole["displayTimeUnit"] in {"ms", "ns"}
    rows: list[dict[str, Any]] = whole["traceEvents"]
    names: dict[tuple[str, int, object], str] = {}
    runs: dict[tuple[int, int], list[str]] = defaultdict(list)  # of each track, those that are not over
    times: dict[tuple[int, int], float] = {}
    for row in rows:
        phase, process, thread = row["ph"], row["pid"], row.get("tid")
        assert type(process) is int
        assert isinstance(row["args"], dict)
        if phase == "M":
            assert row["name"] in NAMES_OF_METADATA
            assert (row["name"], process, thread) not in names, "a track has two names"
            names[row["name"], process, thread] = row["args"]["name"]
            continue
        assert type(thread) is int
        assert thread > 0, "0 is another's number, to some viewers"
        assert {("process_name", process, None), ("thread_name", process, thread)} <= names.keys()
        assert type(row["ts"]) in {int, float}
        assert math.isfinite(row["ts"])
        if phase == "E":
            assert runs[process, thread].pop()
        else:
            assert phase in {"B", "i"}
            assert isinstance(row["cat"], str)
            assert row["name"]
            assert isinstance(row["name"], str)
        if phase == "i":  # another thread may have been between it and the one before
            assert row["s"] in {"g", "p", "t"}
            continue
        if phase == "B":
            runs[process, thread].append(row["name"])
        assert row["ts"] >= times.get((process, thread), 0), "time goes back"
        times[process, thread] = row["ts"]
    assert len(set(names.values())) == len(names)
    return rows


def test_the_demo_s_trace_is_as_the_format_wants_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of two CPUs, in two threads: each has a track, on which its runs begin and end."""
    path = tmp_path / "trace.json"
    assert cli.main(["demo", "--cpus", "2", "--connections", "10", "--seconds", "0.3", "--trace", str(path)]) == 0
    capsys.readouterr()
    found = check_format(path)

    begun, ended = (sum(row["ph"] == phase for row in found) for phase in "BE")
    assert 0 < ended <= begun <= ended + 2  # when the trace ends, a run of each CPU may be in progress
    tracks = {(row["pid"], row["tid"], row["args"]["cpu"]) for row in found if row["ph"] != "M"}
    assert tracks == {(os.getpid(), os.getpid() + number, number) for number in range(2)}


WRONG: Final[dict[str, Callable[[list[dict[str, Any]]], object]]] = {
    "an end without a beginning": lambda rows: rows.remove(next(row for row in rows if row["ph"] == "B")),
    "a track without a name": lambda rows: rows.pop(1),
    "two tracks of one name": lambda rows: rows.insert(1, rows[1] | {"tid": 7}),
    "two names of one track": lambda rows: rows.insert(1, rows[1]),
    "no time": lambda rows: rows[-1].pop("ts"),
    "time that goes back": lambda rows: rows[-1].update(ts=0),
    "a mark without a scope": lambda rows: rows[2].pop("s"),
    "no thread": lambda rows: [row.update(tid=0) for row in rows[1:]],
    "an unknown phase": lambda rows: rows[2].update(ph="Q"),
}


@pytest.mark.trio
@pytest.mark.parametrize("what", WRONG)
async def test_what_is_not_as_the_format_wants_it_is_found(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, what: str
) -> None:
    """Each rule of the format, broken in a file that is right."""
    path = tmp_path / "trace.json"
    async with open_callouts() as system:
        with system.tracing(path):
            system.call_later(1, ignore)
            await trio.sleep(2)
    check_format(path)
    whole = json.loads(path.read_bytes())
    WRONG[what](whole["traceEvents"])
    path.write_text(json.dumps(whole))

    with pytest.raises((AssertionError, IndexError, KeyError)):
        check_format(path)


class Thing:
    """Something with two callouts and a lock of its own."""

    def __init__(self, system: CalloutSystem) -> None:
        self.lock = system.mutex("its own")
        self.guarded = system.callout(ignore, lock=self.lock, name="guarded")
        self.bare = system.callout(ignore, name="bare")


@pytest.mark.trio
async def test_calls_are_told_by_their_names(autojump_clock: trio.testing.MockClock) -> None:
    """What stops, drains or closes has its name in C; an error its type; what was freed, the object, and whether the
    lock was a part of it.
    """
    events: list[TraceEvent] = []
    slab: Slab[Thing] = Slab("thing")
    async with open_callouts(on_error=lambda error, c: None) as system:
        with system.tracing(events.append):
            thing = slab.alloc(Thing, system)
            bare = thing.bare
            bare.stop()
            callout_dequeue(bare)
            await bare.drain()
            callout_drain_async(bare, ignore, None)
            await callout_barrier(bare)
            await callout_quiesce(bare)
            await callout_terminate(bare)
            thing.guarded.reset(1)
            slab.free(thing)
            await trio.sleep(2)

        assert [(event.kind, event.detail) for event in events if event.detail is not None] == [
            (TraceKind.NOT_STOPPED, "callout_stop"),
            (TraceKind.NOT_STOPPED, "callout_dequeue"),
            (TraceKind.DRAINED, "callout_drain"),
            (TraceKind.DRAINED, "callout_drain_async"),
            (TraceKind.DRAINED, "callout_barrier"),
            (TraceKind.DRAINED, "callout_quiesce"),
            (TraceKind.DRAINED, "callout_terminate"),
            (TraceKind.FREED, "thing 1, generation 1"),
            (TraceKind.FREED, "thing 1, generation 1, with its lock"),
            (TraceKind.ERROR, "UseAfterFree"),
        ]


@pytest.mark.trio
async def test_completions_are_told() -> None:
    """When one is called, and when it has returned; with the name of its function, also if it raises, and for a set."""
    events: list[TraceEvent] = []

    def raises(arg: object) -> None:
        raise ValueError

    async with open_callouts(on_error=lambda error, c: None) as system:
        with system.tracing(events.append):
            a, b = system.callout(ignore), system.callout(ignore)
            a.close_soon(raises, None)
            close_all_soon([b, system.callout(ignore)], ignore)
            await trio.testing.wait_all_tasks_blocked()

        completions = [event for event in events if event.kind in (TraceKind.COMPLETING, TraceKind.COMPLETED)]
        assert [(event.kind.value, event.serial, event.function.rpartition(".")[2]) for event in completions] == [
            ("completing", 1, "raises"),
            ("completed", 1, "raises"),
            ("completing", 2, "ignore"),
            ("completed", 2, "ignore"),
        ]
        assert [event.detail for event in events if event.kind is TraceKind.CLOSED] == [
            *("close_soon", "close_all_soon", "close_all_soon"),
        ]


@pytest.mark.trio
@pytest.mark.parametrize("checking", [False, True])
async def test_a_file_has_the_locks_that_were_held(tmp_path: Path, checking: bool) -> None:
    """Of each event, by number, in checking mode all of them and since when; else that of the callout."""
    path = tmp_path / "trace.json"
    async with open_callouts(checking=checking) as system:
        outer, lock = system.mutex("outer"), system.mutex("lock", recursive=True)
        c = system.callout(ignore, lock=lock)
        with system.tracing(path):
            c.reset(5)
            with outer, lock:
                c.reset(6)
            with lock:
                c.reset(7)
                c.stop()
        whole = json.loads(path.read_text("ascii"))
        found = [row["args"] for row in whole["traceEvents"] if row["ph"] != "M"]

        assert {each["lock_kind"] for each in found} == {"recursive mutex"}
        number = found[0]["lock_number"]
        held = [each.get("held") for each in found]
        assert held[0] is None
        assert held[1][-1] == number
        assert len(held[1]) == (2 if checking else 1)
        assert held[2:] == [[number], [number]]
        assert [each.get("section") for each in found] == ([None, 0, 1, 1] if checking else [None] * 4)
        assert whole["otherData"]["events"] == 4


@pytest.mark.trio
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
async def test_a_file_that_cannot_be_written_takes_no_other_error_s_place() -> None:
    """By itself it is raised, with the name of the file; beside what leaves the block it is a note of that."""
    async with open_callouts() as system:
        with pytest.raises(OSError, match="/dev/full") as caught, system.tracing("/dev/full"):
            system.call_later(1000, ignore)
        assert caught.value.errno == errno.ENOSPC
        with pytest.raises(KeyError) as mine, system.tracing("/dev/full"):
            raise KeyError
        assert any("tracing: " in note and "/dev/full" in note for note in mine.value.__notes__)
        with system.tracing(ignore):
            pass  # none is left open
