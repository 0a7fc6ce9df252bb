"""From an incident to a test: traces of real systems, as scenarios on virtual CPUs."""

from __future__ import annotations

import json
import os
import threading
import types
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from callout import (
    C_DIRECT_EXEC,
    CALLOUT_RETURNUNLOCKED,
    CALLOUT_SHAREDLOCK,
    CALLOUT_TRYLOCK,
    MTX_RECURSE,
    MTX_SPIN,
    SBT_1MS,
    ArgumentTypeError,
    ArgumentValueError,
    Callout,
    CalloutSystem,
    Mtx,
    RmLock,
    RwLock,
    TraceError,
    UseAfterFree,
    callout_barrier,
    callout_drain_all_async,
    callout_drain_async,
    callout_drain_sync,
    callout_init,
    callout_init_mtx,
    callout_init_rm,
    callout_init_rw,
    callout_reset,
    callout_reset_on,
    callout_reset_sbt,
    callout_stop,
    callout_terminate,
    cli,
    open_callouts,
)
from callout._worlds.trio import tracing
from callout.explore import Incident, Violation, explore, incident, replay
from callout.explore._recorded import read
from callout.freebsd13 import callout_async_drain
from callout.testing import Slab

Program = Callable[[CalloutSystem], Awaitable[None]]


def record(path: Path, program: Program, *, cpus: int = 1, checking: bool = True, where: bool = False) -> Path:
    """Run a program in a traced system, and return the trace."""

    async def main() -> None:
        async with open_callouts(cpus, checking=checking, on_error=lambda error, c: None) as system:
            with system.tracing(path, where=where):
                await program(system)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0) if cpus == 1 else None)
    return path


def follow(case: Incident) -> None:
    """Run the recorded order, which goes well, and assert that every event came when it was its turn."""
    certificate = case.explore()

    assert (certificate.schedules, certificate.exhausted) == (1, True)
    order = case._orders[0]
    assert [event for event, done in zip(case._expected, order._done, strict=True) if not done] == []
    assert certificate.in_order == case.in_order == (len(case._expected), len(case._expected))


def ignore(*args: object) -> None:
    """Be a callback that does nothing."""


# -- what happened once ------------------------------------------------------------------------------------------------


def test_the_demo_s_use_after_free_is_replayed_from_its_trace_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The staged race: the trace becomes a scenario of three callouts and one thread, and goes wrong at once."""
    path = tmp_path / "incident.json"
    assert cli.main(["demo", "--teardown", "stop-and-free", "--connections", "20", "--trace", str(path)]) == 1
    capsys.readouterr()
    case = incident(path)

    assert case.title.startswith("UseAfterFree of ")
    with pytest.raises(Violation, match="schedule 1 went wrong") as caught:
        case.explore()
    assert isinstance(caught.value.__cause__, UseAfterFree)
    assert "its lock 'pcb of connection" in str(caught.value.__cause__)

    # The source is a module of its own, which the schedule fits.
    module = types.ModuleType("kept")
    exec(case.source, vars(module))  # noqa: S102 - it was made here
    with pytest.raises(UseAfterFree):
        replay(module.incident, caught.value.schedule)
    with pytest.raises(UseAfterFree):
        replay(case, caught.value.schedule)
    with pytest.raises(Violation):
        explore(module.incident, cpus=case.cpus, bound=1, short_paths=False)


class Session:
    """Something with a timer."""

    def __init__(self, system: CalloutSystem) -> None:
        self.lock = system.mutex("session")
        self.timer = system.callout(ignore, lock=self.lock, name="expiry")


async def stop_and_free(system: CalloutSystem) -> None:
    """Do what goes well nearly always."""
    slab: Slab[Session] = Slab("session")
    session = slab.alloc(Session, system)
    with session.lock:
        callout_reset_on(session.timer, 60_000, ignore, None, 1)
    with session.lock:
        session.timer.stop()
    slab.free(session)


def test_of_a_run_that_went_well_the_neighbours_do_not(tmp_path: Path) -> None:
    """Nothing went wrong in the trace; one step out of its order, something does."""
    path = record(tmp_path / "trace.json", stop_and_free, cpus=2)
    with pytest.raises(ArgumentValueError, match=r"nothing went wrong with any callout in .*: serial="):
        incident(path)
    case = incident(path, serial=1, before=9)

    follow(case)
    with pytest.raises(Violation) as caught:
        case.explore(bound=2)
    assert isinstance(caught.value.__cause__, UseAfterFree)
    assert caught.value.number > 1


def test_the_scenario_can_be_read(tmp_path: Path) -> None:
    """It has the names of the trace, and says where each call was made."""
    case = incident(record(tmp_path / "trace.json", stop_and_free, cpus=2, where=True), serial=1, before=9)

    assert case.source.startswith('"""ignore, callout 1 in trace.json."""\n')
    for line in (
        'session = Mtx("session")',
        "callout_init_mtx(expiry, session)",
        "session_2 = slab.alloc(\n            Session,\n            expiry=expiry,\n            session=session,\n",
        "        with session:\n            callout_reset_on(expiry, 60000, on_expiry, None, 1)  # test_incident.py:",
        "        with session:\n            callout_stop(expiry)  # test_incident.py:",
        "        slab.free(session_2)  # test_incident.py:",
    ):
        assert line in case.source
    assert " in stop_and_free()" in case.source


# -- every call, every lock --------------------------------------------------------------------------------------------


class Parts:
    """What callouts belong to, which relates them."""

    def __init__(self, *parts: object) -> None:
        self.parts = parts


async def calls_of_every_kind(system: CalloutSystem) -> None:
    """Stop, drain and close, from a task, from callbacks and from completions."""
    other = system.callout(ignore, name="other")
    done = trio.Event()

    def busy() -> None:
        other.reset(30)
        other.stop()
        callout_drain_async(timer, completed, None)

    def completed(_: object) -> None:
        other.reset(1)
        done.set()

    timer = system.call_later(1, busy, name="timer")
    timer.stop()
    timer.reset(2)
    await done.wait()
    await other.drain()
    await callout_barrier(other)
    other.reset(5)
    callout_async_drain(timer, ignore)
    callout_drain_all_async([timer, other], ignore, None)
    await trio.to_thread.run_sync(callout_drain_sync, timer)
    timer.reset(1)
    await callout_terminate(timer)
    timer.reset(1)
    other.close_soon(ignore)
    await trio.sleep(1)
    slab: Slab[Parts] = Slab("parts")
    slab.free(slab.alloc(Parts, timer, other))


def test_calls_of_every_kind(tmp_path: Path) -> None:
    """Each is made again, by a task, a thread, a callback or a completion, in the recorded order."""
    case = incident(record(tmp_path / "trace.json", calls_of_every_kind), serial=1, before=99)

    follow(case)
    for call in (
        "callout_drain_async(timer, completed_1, None)",
        "await callout_drain(other)",
        "await callout_barrier(other)",
        "callout_async_drain(timer, nothing)",
        "callout_drain_all_async([timer, other], nothing, None)",
        "callout_drain_sync(timer)",
        "await callout_terminate(timer)",
        "other.close_soon(completed_2, None)",
        'if ran["timer"] == 1:',
        "from callout.freebsd13 import callout_async_drain",
    ):
        assert call in case.source, case.source


async def locks_of_every_kind(system: CalloutSystem) -> None:
    """Run a callout under each, and direct ones; stop another with its lock held."""
    spin, recursive = Mtx("spin", MTX_SPIN), Mtx("rec", MTX_RECURSE)
    rw, rm = RwLock("rw"), RmLock("rm")
    callouts = [Callout() for _ in range(8)]
    callout_init(callouts[0], 0)
    callout_init(callouts[1], 1)
    callout_init_mtx(callouts[2], spin)
    callout_init_mtx(callouts[3], recursive, CALLOUT_TRYLOCK)
    callout_init_rw(callouts[4], rw)
    callout_init_rw(callouts[5], rw, CALLOUT_SHAREDLOCK)
    callout_init_rm(callouts[6], rm)
    callout_init_mtx(callouts[7], mutex := Mtx("m"), CALLOUT_RETURNUNLOCKED)
    callout_reset_sbt(callouts[2], SBT_1MS, 0, ignore, None, C_DIRECT_EXEC)
    for c in callouts[3:7]:
        callout_reset(c, 5, ignore, None)
    callout_reset(callouts[0], 5, ignore, None)
    callout_reset(callouts[1], 5, ignore, None)
    callout_reset(callouts[7], 5, lambda _: mutex.__exit__(), None)
    await trio.sleep(1)
    with recursive, recursive, rw, mutex:
        callout_reset(callouts[3], 5, ignore, None)
        callout_stop(callouts[3])
    await trio.sleep(1)
    slab: Slab[Parts] = Slab("parts")
    slab.free(slab.alloc(Parts, *callouts))


def test_locks_of_every_kind(tmp_path: Path) -> None:
    """Each callout has its kind of lock again, its flags, and runs where it ran."""
    case = incident(record(tmp_path / "trace.json", locks_of_every_kind), serial=1, before=99)

    follow(case)
    for line in (
        'spin = Mtx("spin", MTX_SPIN)',
        'rec = Mtx("rec", MTX_RECURSE)',
        'rw = RwLock("rw")',
        'rm = RmLock("rm")',
        ", rec, CALLOUT_TRYLOCK)",
        ", rw, CALLOUT_SHAREDLOCK)",
        ", m, CALLOUT_RETURNUNLOCKED)",
        ", None, 0, C_DIRECT_EXEC)",
        "callout_init(ignore_6, 0)",
        "with rec:",
        "with rw:",
    ):
        assert line in case.source, case.source


async def a_thread_beside_a_task(system: CalloutSystem) -> None:
    """Arm and stop from a thread, then from a task, also on CPU 1, with one lock held and with two."""
    lock, outer = system.mutex("lock"), system.mutex("outer")
    first, second = system.callout(ignore, lock=lock, name="first"), system.callout(ignore, lock=lock, name="second")

    def work() -> None:
        with outer, lock:
            first.reset(9)
            second.reset(9)
        with lock:
            first.stop()

    await trio.to_thread.run_sync(work)
    with lock:
        callout_reset_on(first, 9, ignore, None, 1)
        first.stop()
    with outer, lock:
        second.stop()
        first.stop()


def test_sections_of_locks(tmp_path: Path) -> None:
    """Each is as long as it was, in checking mode; without, those of the callout's own lock are known, and what nobody
    came between is one.
    """
    exact = incident(record(tmp_path / "a.json", a_thread_beside_a_task, cpus=2), serial=1, before=99)
    rough = incident(record(tmp_path / "b.json", a_thread_beside_a_task, cpus=2, checking=False), serial=1, before=99)

    follow(exact)
    follow(rough)
    assert exact.source.count(" with ") == 1 + 6  # that of vm.setup(), too
    assert rough.source.count(" with ") == 1 + 2
    assert "callout_reset_on(first, 9, on_first, None, 1)" in exact.source


def test_two_tasks_of_one_loop(tmp_path: Path) -> None:
    """What a loop's thread does while one of its tasks waits for a callout is another task's doing."""

    async def program(system: CalloutSystem) -> None:
        going, go_on = threading.Event(), threading.Event()

        def busy(_: object) -> None:
            going.set()
            go_on.wait()

        c = Callout()
        callout_init(c, 1)
        callout_reset_on(c, 1, busy, None, 1)
        await trio.to_thread.run_sync(going.wait)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(c.drain)
            await trio.testing.wait_all_tasks_blocked()
            c.stop()
            go_on.set()

    case = incident(record(tmp_path / "trace.json", program, cpus=2), serial=1, before=99)

    follow(case)
    assert "async def task_on_cpu_0() -> None:" in case.source
    assert "def task_on_cpu_0_2() -> None:\n        callout_stop(" in case.source


def test_names_in_a_trace_are_no_code(tmp_path: Path) -> None:
    """Whatever a callout, a lock or a slab is called, the source is a scenario and nothing else."""

    async def program(system: CalloutSystem) -> None:
        lock = system.mutex('"); raise SystemExit  # \\')
        c = system.call_later(5, ignore, lock=lock, name="class\n'''raise SystemExit'''")
        names = ("ran", "print", "callout_stop", "x", "on_x", "completed_1", "thread", "lambda", "1", "", "é")
        others = [system.call_later(5, ignore, lock=lock, name=name) for name in names]
        with lock:
            for each in (c, *others):
                each.stop()
        slab: Slab[Parts] = Slab('"""')
        slab.free(slab.alloc(Parts, c, *others, lock))

    follow(incident(record(tmp_path / 'a"\n.json', program, where=True), serial=1, before=99))


def test_a_trace_may_begin_in_the_middle_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was before was dropped: the end of that run is read, and what comes after it."""
    monkeypatch.setattr(tracing, "MOST", 4)
    path = tmp_path / "trace.json"

    async def main() -> None:
        async with open_callouts() as system:
            with system.tracing(path):
                system.call_later(1, ignore)
                c = system.callout(ignore)
                await trio.sleep(2)
                for _ in range(3):
                    c.reset(5)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    recording = read(path)

    assert recording.dropped == 3
    assert [event.kind.value for event in recording.events] == ["finished", "armed", "rearmed", "rearmed"]
    follow(incident(path, serial=2, before=99))


# -- what cannot be read -----------------------------------------------------------------------------------------------


def change(path: Path, how: Callable[[dict[str, Any]], object]) -> Path:
    """Change a trace."""
    whole = json.loads(path.read_text())
    how(whole)
    path.write_text(json.dumps(whole))
    return path


def event(whole: dict[str, Any], **facts: object) -> None:
    """Change the first event."""
    row = next(row for row in whole["traceEvents"] if row["ph"] != "M")
    for name, fact in facts.items():
        (row if name in row else row["args"])[name] = fact


WRONG: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (lambda w: w.pop("otherData"), "this is no trace of callouts; give a file that system.tracing"),
    (lambda w: w["otherData"].update(format="other"), "this is no trace of callouts"),
    (lambda w: w["otherData"].update(version=2), "a trace of version 2, and this callout reads version 1"),
    (lambda w: w["otherData"].update(cpus=0), "there is no system with 0 CPUs"),
    (lambda w: w["otherData"].update(hz="1000"), "hz must be a whole number, not '1000'"),
    (lambda w: w["traceEvents"].pop(), r"it says that it has \d+ events, and it has \d+: was a part of it cut out\?"),
    (lambda w: w.pop("traceEvents"), "and it has 0"),
    (lambda w: w["traceEvents"].append(3), "an event cannot be 3"),
    (lambda w: event(w, kind="exploded"), "event 2: kind cannot be 'exploded'"),
    (lambda w: event(w, serial="1"), "serial cannot be '1'"),
    (lambda w: event(w, held=[1, "2"]), "held cannot be"),
    (lambda w: event(w, lock_kind="latch"), "lock_kind cannot be 'latch'"),
    (lambda w: event(w, flags=None), "flags cannot be None"),
    (lambda w: event(w, where=3), "where cannot be 3"),
    (lambda w: w["otherData"].update(loops=[]), r"loops must be the threads of 2 CPUs, not \[\]"),
    (lambda w: event(w, function=None), "function cannot be None"),
    (lambda w: event(w, direct=1), "direct cannot be 1"),
    (lambda w: event(w, due_in="soon"), "due_in cannot be 'soon'"),
    (lambda w: event(w, cpu=7), "event 0: there is no CPU 7; it has 2"),
]


@pytest.mark.parametrize(("how", "said"), WRONG, ids=range(len(WRONG)))
def test_what_is_no_whole_trace_is_an_error(tmp_path: Path, how: Callable[[dict[str, Any]], object], said: str) -> None:
    """It names the file and says what is wrong with it."""
    path = record(tmp_path / "trace.json", stop_and_free, cpus=2)

    with pytest.raises(TraceError, match=said) as caught:
        incident(change(path, how))
    assert str(path) in str(caught.value)


def test_a_truncated_trace_is_an_error(tmp_path: Path) -> None:
    """Wherever it was cut off. What is no file is an OSError."""
    path = record(tmp_path / "trace.json", stop_and_free, cpus=2)
    whole = path.read_bytes()
    for length in (0, 1, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(TraceError, match=r"not JSON \(is the file truncated\?\)"):
            incident(path)
    with pytest.raises(FileNotFoundError):
        incident(tmp_path / "nothing.json")


def test_wrong_arguments(tmp_path: Path) -> None:
    """Each is an error that says what is wanted."""
    path = record(tmp_path / "trace.json", stop_and_free, cpus=2)
    with pytest.raises(ArgumentTypeError, match="serial must be an int"):
        incident(path, serial="1")  # type: ignore[arg-type]
    with pytest.raises(ArgumentValueError, match="before must be"):
        incident(path, serial=1, before=-1)
    with pytest.raises(ArgumentValueError, match="nothing has happened to a callout 7 in"):
        incident(path, serial=7)
    with pytest.raises(ArgumentValueError, match="strategy 'recorded' is for a scenario that incident"):
        explore(lambda vm: None, strategy="recorded")
    case = incident(path, serial=1)
    with ThreadPoolExecutor(1) as executor, pytest.raises(ArgumentValueError, match="give no executor"):
        explore(case, strategy="recorded", executor=executor)


def test_too_much_for_a_scenario(tmp_path: Path) -> None:
    """A part of more events than a scenario can have is refused, and says how many there are."""

    async def program(system: CalloutSystem) -> None:
        c = system.callout(ignore)
        for _ in range(400):
            c.reset(5)

    path = record(tmp_path / "trace.json", program)
    with pytest.raises(ArgumentValueError, match="400 events of 1 callout belong to it, and 300 is the most"):
        incident(path, serial=1, before=1000)
    follow(incident(path, serial=1, before=100))


def test_any_search_explores_an_incident(tmp_path: Path) -> None:
    """It is a scenario like any other: the exhaustive search finds what its own found."""
    case = incident(record(tmp_path / "trace.json", stop_and_free, cpus=2), serial=1, before=9)

    with pytest.raises(Violation) as caught:
        explore(case, cpus=case.cpus, hz=case.hz, short_paths=False)
    assert isinstance(caught.value.__cause__, UseAfterFree)
    with pytest.raises(UseAfterFree):
        replay(case, caught.value.schedule)


# -- the command -------------------------------------------------------------------------------------------------------


def test_the_command_explores_a_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It says what went wrong, draws it, and writes a test that fails."""
    path = record(tmp_path / "trace.json", stop_and_free, cpus=2)
    written, svg = tmp_path / "test_kept.py", tmp_path / "kept.svg"
    options = ["--serial", "1", "--before", "9"]
    status = cli.main(["explore", "--trace", str(path), *options, "--write", str(written), "--svg", str(svg)])
    out = capsys.readouterr().out

    assert status == 1
    assert "ignore, callout 1 in trace.json" in out
    assert "*** UseAfterFree: session 1" in out
    assert "\nIn the first run all " in out
    assert f"written: {written}" in out
    assert svg.read_text().startswith("<svg")
    module = types.ModuleType("kept")
    exec(written.read_text(), vars(module))  # noqa: S102 - it was made here
    with pytest.raises(Violation):
        module.test_incident()

    assert cli.main(["explore", "--trace", str(path), *options, "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["in order"][0] == report["in order"][1] > 0
    assert report["found"].startswith("session 1, generation 1 (Session) was used after it was freed")
    assert report["schedule"].startswith("v4,incident,cpus=2,hz=1000,paths=long:")


def test_the_command_says_that_nothing_goes_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With what it has run; and the test that it writes passes."""
    path = record(tmp_path / "trace.json", stop_and_free, cpus=2)
    written = tmp_path / "test_kept.py"

    assert cli.main(["explore", "--trace", str(path), "--serial", "1", "--bound", "0", "--write", str(written)]) == 0
    assert "nothing was found in 1 schedule (the recorded order, in which all " in capsys.readouterr().out
    assert "Nothing went wrong." in written.read_text()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--trace", "{trace}"], "--trace: incident: nothing went wrong with any callout in"),
        (["--trace", "{trace}", "--serial", "9"], "--trace: incident: nothing has happened to a callout 9 in"),
        (["--trace", "{trace}", "--serial", "0"], "--trace: incident: serial must be from 1 to"),
        (["--trace", "nowhere.json"], "--trace: 'nowhere.json' cannot be read: No such file or directory"),
        (["--trace", "{trace}", "--write", "no/where.py"], "--write: 'no/where.py' cannot be written"),
        (["--trace", "{trace}", "--fixed"], "give one of these: a race"),
        (["--write", "x.py"], "give one of these: a race"),
        (["R0.1", "--serial", "1"], "give one of these: a race"),
        (["--trace", "{trace}", "--bound", "-1"], "--bound must be a number from 0 up, and at most"),
        (["--trace", "{trace}", "--bound", "9" * 30], "--bound must be a number from 0 up, and at most"),
        (["--trace", "{trace}", "--write", "same", "--svg", "same"], "--svg and --write name the same file"),
    ],
)
def test_wrong_use_of_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    """Each mistake is one line, and status 2."""
    path = record(tmp_path / "trace.json", stop_and_free, cpus=2)

    assert cli.main(["explore", *(each.format(trace=path) for each in options)]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


def test_of_a_run_whose_order_cannot_be_made_again_it_says_how_far_it_came(tmp_path: Path) -> None:
    """A trace that says of a stop what it cannot have found: the certificate says how much came as it was recorded."""
    path = record(tmp_path / "trace.json", stop_and_free, cpus=2)
    trace = json.loads(path.read_text())
    rows = trace["traceEvents"]
    next(row["args"] for row in rows if row.get("args", {}).get("kind") == "stopped")["kind"] = "not stopped"
    path.write_text(json.dumps(trace))
    case = incident(path, serial=1, before=9)

    certificate = case.explore()

    assert certificate.in_order is not None
    came, expected = certificate.in_order
    assert 0 < came < expected
    assert f"(the recorded order, in which {came} of {expected} events of the trace came in their turn)" in str(
        certificate
    )


async def cancelled_then_drained(system: CalloutSystem) -> None:
    """Cancel a run that waits for its lock; then drain the callout, and go on in the same task."""
    lock = system.mutex("lock")
    timer = system.callout(ignore, lock=lock, name="timer")
    held, parked = threading.Event(), threading.Event()

    def hold_and_cancel() -> None:
        with lock:
            held.set()
            assert parked.wait(60)
            assert callout_stop(timer) == 1

    thread = threading.Thread(target=hold_and_cancel)  # the clock does not wait for it
    thread.start()
    assert held.wait(60)
    timer.reset(0.001)
    await trio.sleep(0.01)  # now softclock waits for the lock
    parked.set()
    thread.join()
    await timer.drain()
    with lock:
        timer.reset(30)
        timer.stop()


async def closed_at_last(system: CalloutSystem) -> None:
    """End with what a drain has already done."""
    timer = system.call_later(30, ignore)
    timer.stop()
    await timer.aclose()


def test_a_scenario_in_which_nothing_happens_is_refused(tmp_path: Path) -> None:
    """Where nothing went wrong the end of a trace may be of no use; the error says how to begin earlier."""
    path = record(tmp_path / "trace.json", closed_at_last)

    with pytest.raises(ArgumentValueError, match=r"nothing that a scenario could do .* begin earlier: before="):
        incident(path, serial=1)
    follow(incident(path, serial=1, before=9))


def test_a_run_that_was_cancelled_is_over(tmp_path: Path) -> None:
    """What comes after it begins a part; and the task that has drained the callout since then goes on."""
    path = record(tmp_path / "trace.json", cancelled_then_drained)
    kinds = [event.kind for event in read(path).events]
    assert kinds[:4] == ["armed", "dequeued", "waiting", "stopped"]

    assert "callout_drain" not in incident(path, serial=1).source  # it begins later, with what is armed at last
    case = incident(path, serial=1, before=99)
    assert "task_on_cpu_0_2" not in case.source
    follow(case)


async def two_timers(system: CalloutSystem) -> None:
    """Arm a callout in the callback of another one, which goes on meanwhile."""
    inner, go_on = threading.Event(), threading.Event()
    second = system.callout(ignore, name="second")

    def busy() -> None:
        inner.set()
        assert go_on.wait(60)
        second.reset(30)
        second.stop()

    def from_a_thread() -> None:
        assert inner.wait(60)
        second.reset(40)
        second.stop()
        go_on.set()

    first = system.call_later(0, busy, name="first", cpu=1)
    await trio.to_thread.run_sync(from_a_thread)
    await first.drain()


def test_a_part_that_would_begin_inside_another_callback_begins_before_it(tmp_path: Path) -> None:
    """What that callback does is done by it, and not by a task that nobody has seen."""
    case = incident(record(tmp_path / "trace.json", two_timers, cpus=2), serial=2, before=1)

    assert "task" not in case.source
    assert "def on_first(" in case.source
    follow(case)


@pytest.mark.parametrize("make", ["fifo", "device", "folder"])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str], make: str) -> None:
    """It would be read for ever."""
    path = Path("/dev/zero") if make == "device" else tmp_path / "trace"
    if make == "fifo":
        os.mkfifo(path)
    elif make == "folder":
        path.mkdir()

    assert cli.main(["explore", "--trace", str(path)]) == 2
    err = capsys.readouterr().err
    assert f"--trace: '{path}' cannot be read: it is " in err
    assert err.count("\n") == 1


# -- what readers have found -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"detail": "os; import os"}, "detail cannot be 'os; import os'"),
        ({"detail": "foo_bar"}, "detail cannot be 'foo_bar'"),
        ({"due_in": float("nan")}, "due_in cannot be nan"),
        ({"due_in": float("inf")}, "due_in cannot be inf"),
        ({"due_in": 10**400}, "due_in cannot be 1000"),
        ({"ts": 10**400}, "time cannot be 1000"),
    ],
)
def test_what_stands_in_a_file_is_checked(tmp_path: Path, facts: dict[str, object], said: str) -> None:
    """A call is one of those that there are, and a number is one that a scenario can have."""

    async def program(system: CalloutSystem) -> None:
        system.callout(ignore).stop()

    path = record(tmp_path / "trace.json", program)
    with pytest.raises(TraceError, match=said):
        incident(change(path, lambda whole: event(whole, **facts)), serial=1)


def test_no_text_of_a_file_is_run(tmp_path: Path) -> None:
    """Whatever stands there as the place of a call is a comment in the source, and no more."""

    async def program(system: CalloutSystem) -> None:
        system.callout(ignore).stop()

    path = record(tmp_path / "trace.json", program, where=True)
    where = "a.py:1 in f()\nraise SystemExit\n    raise SystemExit\n        raise SystemExit\r\0\ud800"
    case = incident(change(path, lambda whole: event(whole, where=where)), serial=1)

    follow(case)
    assert [line for line in case.source.splitlines() if "SystemExit" in line.partition("#")[0]] == []
    assert "SystemExit" in case.source


def test_a_long_delay_is_one_that_can_be_armed(tmp_path: Path) -> None:
    """However far ahead a callout was due."""

    async def program(system: CalloutSystem) -> None:
        system.call_later(60 * 365 * 86400, ignore).stop()

    follow(incident(record(tmp_path / "trace.json", program), serial=1, before=9))


def test_what_was_closed_is_closed_again(tmp_path: Path) -> None:
    """Whether the trace has that, or begins later: its armings are refused."""
    keep: list[Callout] = []

    async def before(system: CalloutSystem) -> None:
        c = system.callout(ignore, name="c")
        keep[:] = [c]
        await c.aclose()
        c.reset(5)
        c.stop()

    follow(case := incident(record(tmp_path / "a.json", before), serial=1, before=1))
    assert "callout_dequeue(c, close=True)" in case.source

    async def main() -> None:
        async with open_callouts() as system:
            c = system.callout(ignore, name="c")
            await c.aclose()
            with system.tracing(tmp_path / "b.json"):
                c.reset(5)
                c.stop()

    trio.run(main)
    follow(case := incident(tmp_path / "b.json", serial=1, before=9))
    assert "callout_dequeue(c, close=True)" in case.source


def test_a_run_between_two_sections_has_had_the_lock(tmp_path: Path) -> None:
    """Also where it ran on the loop of the task whose sections they are."""

    async def program(system: CalloutSystem) -> None:
        lock = system.mutex("lock")
        c = system.callout(ignore, lock=lock, name="c")
        for _ in range(2):
            with lock:
                c.reset(1)
            await trio.sleep(2)

    case = incident(record(tmp_path / "trace.json", program, checking=False), serial=1, before=9)

    follow(case)
    assert case.source.count("        with lock:") == 2
    assert "await elsewhere()" in case.source


def test_callouts_under_two_locks_are_freed_once(tmp_path: Path) -> None:
    """They belong to one object, whichever lock is a part of it."""

    async def program(system: CalloutSystem) -> None:
        mine, other = system.mutex("mine"), system.mutex("other")
        callouts = [system.callout(ignore, lock=lock) for lock in (mine, other, mine)]
        callouts[0].reset(9)
        with mine:
            callouts[0].stop()
        slab: Slab[Parts] = Slab("slab")
        slab.free(slab.alloc(Parts, *callouts, mine))

    case = incident(record(tmp_path / "trace.json", program), serial=1, before=9)

    follow(case)
    assert case.source.count("slab.free(") == 1
    assert case.source.count(" = Callout()") == 3


def test_a_migration_that_a_callback_asks_for_is_made_again(tmp_path: Path) -> None:
    """To the CPU that it named."""

    async def program(system: CalloutSystem) -> None:
        c, over = Callout(), trio.Event()
        callout_init(c, 1)

        def there(_: object) -> None:
            callout_reset_on(c, 1, lambda _: over.set(), None, 0)

        callout_reset_on(c, 1, there, None, 1)
        await over.wait()
        await callout_terminate(c)

    case = incident(record(tmp_path / "trace.json", program, cpus=2), serial=1, before=99)

    follow(case)
    assert ", None, 0)" in case.source


@pytest.mark.parametrize("name", ["slab", "callout", "mtx", "none", "true", "counter", "self"])
def test_any_slab_may_be_freed(tmp_path: Path, name: str) -> None:
    """Whatever it is called."""

    async def program(system: CalloutSystem) -> None:
        lock = system.mutex("self")
        c = system.call_later(9, ignore, lock=lock)
        with lock:
            c.stop()
        slab: Slab[Parts] = Slab(name)
        slab.free(slab.alloc(Parts, c, lock))

    follow(incident(record(tmp_path / "trace.json", program), serial=1, before=9))
