"""The diagram of a run that went wrong: what each context did, at which line, and what it touched."""

from __future__ import annotations

import gc
import re
import subprocess
import sys
from collections.abc import Callable
from enum import Enum
from itertools import pairwise
from pathlib import Path
from typing import Final

import greenlet
import pytest

from callout import Callout, DeadlockError, Mtx, callout_init, callout_init_mtx, callout_reset, callout_stop
from callout._core.lifecycle import close, enter, quiesce
from callout._core.phases import Phase
from callout.explore import Violation, explore
from callout.explore._report import MAX_LANES, MAX_ROWS, drawn, folded
from callout.explore._story import Event, Place, Story
from callout.testing import Slab, VirtualSMP

Scenario = Callable[[VirtualSMP], object]


def found(scenario: Scenario, *, cpus: int = 1, bound: int = 3, steps: int = 20_000) -> Violation:
    """Explore and find something."""
    with pytest.raises(Violation) as caught:
        explore(scenario, cpus=cpus, bound=bound, steps=steps)
    return caught.value


def lanes_of(violation: Violation) -> dict[str, list[str]]:
    """Return the lines of each of the diagram's lanes, by its heading, without what is empty."""
    lines = violation.diagram.partition("\n\n")[0].splitlines()
    edges = [-1, *(at for at, sign in enumerate(lines[1]) if sign == "+"), 999]
    columns = [[line[left + 1 : right].strip() for line in lines] for left, right in pairwise(edges)]
    return {heading: [text for text in column if text] for heading, _, *column in columns}


# -- a model in cells --------------------------------------------------------------------------------------------------


def lost_update(vm: VirtualSMP) -> None:
    """Count to two, in two threads, with a read and a write each."""
    n = vm.cell(0, "n")

    def count() -> None:
        n.value = n.value + 1

    vm.spawn(count, name="one")
    vm.spawn(count, name="other")
    vm.settle()
    if n.value != 2:
        raise ValueError("an update is lost")


LOST_UPDATE: Final = """\
one                                  | other                       | main
-------------------------------------+-----------------------------+--------------------------------------------
test_report.py, count():             |                             |
  {2}: n.value = n.value + 1          |                             |
      reads n -> 0                   |                             |
      (preempted before it writes n) |                             |
                                     | test_report.py, count():    |
                                     |   {2}: n.value = n.value + 1 |
                                     |       reads n -> 0          |
                                     |       writes n = 1          |
      writes n = 1                   |                             |
                                     |                             | test_report.py, lost_update():
                                     |                             |   {7}: if n.value != 2:
                                     |                             |       reads n -> 1
                                     |                             |   {8}: raise ValueError("an update is lost")
                                     |                             | *** ValueError: an update is lost

replay: v4,lost_update,cpus=1,hz=1000,paths=short:0*2.1,choices=3
1 preemption, 9 steps; schedule 2 went wrong, and was shrunk in 12 runs
minimal: no schedule with fewer preemptions ends in ValueError; that search was exhausted after 2 schedules"""


def test_a_model_is_told_read_by_read_and_write_by_write() -> None:
    """A thread a column, time downwards, each line of code with what it read and wrote; what went wrong comes last."""
    first = lost_update.__code__.co_firstlineno + 3
    violation = found(lost_update)

    assert violation.diagram == LOST_UPDATE.format(*(first + line for line in range(9)))
    assert str(violation) == (
        "schedule 2 went wrong; replay it with 'v4,lost_update,cpus=1,hz=1000,paths=short:0*2.1,choices=3'\n\n"
        + violation.diagram
    )


# -- callouts ----------------------------------------------------------------------------------------------------------


class Session:
    """Has a lock, and a callout under it."""

    def __init__(self) -> None:
        self.lock = Mtx("session")
        self.timer = Callout()
        callout_init_mtx(self.timer, self.lock)
        callout_reset(self.timer, 1, Session.expired, self)

    def expired(self) -> None:
        """Be the callback."""


def stopped_and_freed(vm: VirtualSMP) -> None:
    """Stop the callout of a session, and free the session."""
    slab: Slab[Session] = Slab("session")
    with vm.setup():
        session = slab.alloc(Session)
    with session.lock:
        callout_stop(session.timer)
    slab.free(session)
    vm.settle()


@pytest.mark.pure  # a call of what is compiled cannot be seen
def test_softclock_is_told_in_the_words_of_the_kernel() -> None:
    """Not by the locks of its CPU, but by what it does with callouts; what the user calls is told with its result."""
    lanes = lanes_of(found(stopped_and_freed))

    assert list(lanes) == ["main", "cpu0.interrupt", "cpu0 (softclock)"]
    assert lanes["cpu0.interrupt"] == ["queues Session.expired for softclock", "wakes cpu0"]
    assert lanes["cpu0 (softclock)"][:4] == [
        "takes Session.expired from the queue",
        "finds lock 'session' held by main",
        "waits for a wake-up",
        "is woken",
    ]
    assert lanes["cpu0 (softclock)"][4].startswith("*** UseAfterFree: session 1, generation")
    assert re.sub(r"\d+: ", "", " ".join(lanes["main"])) == (
        "test_report.py, stopped_and_freed(): "
        "with session.lock: acquires lock 'session' "
        "callout_stop(session.timer) (preempted before it acquires lock 'cpu0') "
        "cancels the run of Session.expired callout_stop() -> 1 "
        "with session.lock: releases lock 'session' wakes cpu0 "
        "slab.free(session)"
    )


def test_a_callback_is_told_in_the_lane_of_softclock() -> None:
    """With the place in it at which it went wrong, and with no engine code."""

    def scenario(vm: VirtualSMP) -> None:
        c = Callout()
        n = vm.cell(1, "n")

        def divide(_: object) -> None:
            n.value //= 0

        callout_init(c, 1)
        callout_reset(c, 1, divide, None)

    lanes = lanes_of(found(scenario))

    first = scenario.__code__.co_firstlineno
    assert lanes["cpu0 (softclock)"][:5] == [
        "takes divide from the queue",
        "calls divide",
        "test_report.py, divide():",
        f"{first + 5}: n.value //= 0",
        "reads n -> 1",
    ]
    assert " ".join(lanes["cpu0 (softclock)"][5:]) == "*** ZeroDivisionError: integer division or modulo by zero"


def test_neither_a_setup_nor_the_wait_for_the_end_is_told() -> None:
    """What a block of vm.setup() does is no part of the race, and main has no lane if it only settles."""

    def scenario(vm: VirtualSMP) -> None:
        with vm.setup():
            session = Session()

        def stop() -> None:
            with session.lock:
                assert callout_stop(session.timer) == 0

        vm.spawn(stop)
        vm.settle()

    violation = found(scenario)

    assert list(lanes_of(violation)) == ["stop"]


# -- what goes wrong ---------------------------------------------------------------------------------------------------


def crosswise(vm: VirtualSMP) -> None:
    """Two threads acquire two locks, in either order."""
    one, other = vm.lock("one"), vm.lock("other")

    def both(first: object, second: object) -> None:
        with first, second:  # type: ignore[attr-defined]  # they are locks
            pass

    vm.spawn(both, one, other, name="up")
    vm.spawn(both, other, one, name="down")


def test_a_deadlock_is_told_in_the_lane_of_each_that_waits() -> None:
    """Each says what it waits for, and who has it."""
    violation = found(crosswise)
    lanes = lanes_of(violation)

    assert isinstance(violation.__cause__, DeadlockError)
    assert "*** waits for ever for lock 'other', which down holds" in " ".join(lanes["up"])
    assert "*** waits for ever for lock 'one', which up holds" in " ".join(lanes["down"])
    assert "\n*** DeadlockError: nothing can run any more\n" in violation.diagram
    assert "\nnothing can run any more: up waits for the lock 'other'" in violation.diagram


def test_what_a_context_does_on_its_way_out_is_not_told() -> None:
    """A lock that the error itself releases comes after the error."""

    def scenario(vm: VirtualSMP) -> None:
        lock, n = vm.lock("lock"), vm.cell(1, "n")
        with lock:
            n.value //= 0

    assert lanes_of(found(scenario))["main"][-2:] == [
        "reads n -> 1",
        "*** ZeroDivisionError: integer division or modulo by zero",
    ]


def test_what_goes_wrong_where_nobody_runs_has_no_lane() -> None:
    """At the end of a run it stands below all lanes; and if there are none, alone."""
    violation = found(lambda vm: Mtx("m").lock())
    alone = drawn(Story((Event("", None, "ValueError: it", wrong=True),), {}), ["a note"])

    assert "\n*** LockError: main has ended, or idles, and still holds" in violation.diagram
    assert str(alone) == "*** ValueError: it\n\na note"


def test_of_many_threads_most_share_a_lane() -> None:
    """The one in which it went wrong has its own."""

    def scenario(vm: VirtualSMP) -> None:
        n = vm.cell(0, "n")

        def count() -> None:
            assert n.update(lambda before: before + 1) < 19

        for number in range(20):
            vm.spawn(count, name=f"t{number}")

    lanes = lanes_of(found(scenario, bound=0))

    assert len(lanes) == MAX_LANES
    assert list(lanes)[-2:] == ["t19", f"{20 - MAX_LANES + 1} others"]
    assert "*** AssertionError: assert 19 < 19" in " ".join(lanes["t19"])
    assert any(text.startswith("t18: updates n 18 -> 19") for text in lanes[f"{20 - MAX_LANES + 1} others"])


def test_no_more_is_run_of_the_scenario_than_itself() -> None:
    """A value is told without asking it: its repr() might be a step, or use what was freed."""

    class Loud:
        def __repr__(self) -> str:
            raise AssertionError("asked")

    class Colour(Enum):
        RED = 1

    def scenario(vm: VirtualSMP) -> None:
        n = vm.cell((Loud(), Colour.RED, {"a": [1.5, None]}, len, vm.struct("it", x=0)), "n")
        assert not n.value, "full"

    lanes = lanes_of(found(scenario, bound=0))

    assert "reads n -> (<Loud>, Colour.RED, {'a': [1.5, None]}, len, <it>)" in lanes["main"]


# -- loops, and what is too long ---------------------------------------------------------------------------------------

HERE: Final = Place("x.py", 7, "f")


def test_a_loop_is_told_once() -> None:
    """What follows again and again, in whatever lanes, is replaced by how often it does."""
    a, b, c = (Event(lane, HERE, lane) for lane in "abc")

    def told(*events: Event) -> list[str]:
        return [event.text for event in folded(events)]

    assert told(a, b) == ["a", "b"]
    assert told(a, a, b) == ["a", "a", "b"]
    assert told(a, a, a, a, b) == ["a", "… 3 more times", "b"]
    assert told(c, *[a, b] * 1000, a) == ["c", "a", "b", "… 999 more times, from line 7 on", "a"]
    assert folded([a, b] * 3)[-1].lane == ""
    assert told(*[Event("a", None, text) for text in "xyz"] * 3)[-1] == "… 2 more times, from 'a x' on"
    assert folded([a, a, a])[-1].lane == "a"


def test_a_loop_that_reads_other_values_each_time_is_a_loop_if_values_do_not_matter() -> None:
    """So that a counter that is polled does not make the diagram endless."""
    counts = [Event("a", HERE, "reads n", f"-> {value}") for value in range(9)]

    assert folded(counts) == counts
    assert [event.text for event in folded(counts, values=False)] == ["reads n", "… 8 more times"]


def test_a_livelock_is_short() -> None:
    """Thousands of steps are a few lines."""

    def scenario(vm: VirtualSMP) -> None:
        n = vm.cell(0, "n")

        def poll() -> None:
            while not n.value:
                pass

        vm.spawn(poll)

    lanes = lanes_of(found(scenario, steps=2000))

    assert lanes["poll"][2:4] == ["reads n -> 0", "… 1,997 more times"]
    assert "*** LivelockError: no end after 2000 steps" in " ".join(lanes["poll"])


def test_a_long_story_is_cut_in_the_middle() -> None:
    """Its beginning and its end are told."""

    def scenario(vm: VirtualSMP) -> None:
        for number in range(MAX_ROWS + 100):
            vm.cell(0, f"n{number}").value = 1
        raise ValueError("end")

    diagram = found(scenario, bound=0).diagram

    assert "writes n0 = 1" in diagram
    assert f"writes n{MAX_ROWS + 99} = 1" in diagram
    assert "lines left out" in diagram
    assert len(diagram.splitlines()) < MAX_ROWS + 20


def test_three_lanes_fit_a_page_and_nothing_is_cut() -> None:
    """Long names and long lines go on in the next line of their lane."""
    name = "a lock with quite a long name, longer than a lane is wide; and it goes on and on"

    def scenario(vm: VirtualSMP) -> None:
        lock, n = vm.lock(name), vm.cell(0, "n")

        def acquire() -> None:
            with lock:
                assert n.update(lambda before: before + 1) < 2, (
                    "the third of those that acquire the lock has come to it"
                )

        for each in ("one", "two", "three"):
            vm.spawn(acquire, name=each)

    diagram = found(scenario, bound=0).diagram.partition("\n\n")[0]

    assert max(map(len, diagram.splitlines())) <= 120
    assert "".join(name.split()) in "".join("".join(diagram.split()).split("|"))


# -- what is left behind -----------------------------------------------------------------------------------------------


def test_nothing_is_left_behind() -> None:
    """No profile function stays, and no context of a run that was told lives on."""

    def profile(*_: object) -> None:
        """Be somebody else's."""

    def suspended() -> int:
        gc.collect()
        return sum(
            isinstance(it, greenlet.greenlet) and bool(it) and it.gr_frame is not None for it in gc.get_objects()
        )

    before = suspended()
    sys.setprofile(profile)
    try:
        violation = found(crosswise)
        assert sys.getprofile() is profile
    finally:
        sys.setprofile(None)

    assert violation.__cause__ is not None
    assert suspended() == before


def test_what_goes_wrong_after_the_system_was_closed_is_told() -> None:
    """The locks of the CPUs are gone then, and the story goes on all the same."""

    def scenario(vm: VirtualSMP) -> None:
        async def leave() -> None:
            enter(vm.machine, Phase.CANCELLING)
            await quiesce(vm.machine)
            await close(vm.machine)

        vm.spawn(leave, cpu=0)
        vm.settle()
        vm.point()
        raise AssertionError("it was closed")

    violation = found(scenario)

    assert str(violation.__cause__) == "it was closed"
    assert "it was closed" in violation.diagram


ADDRESS_SCRIPT: Final = """
from callout import Callout, Mtx, callout_init_mtx, callout_stop
from callout.explore import Violation, explore

class Thing:
    pass

def unlocked(vm):
    m, c = Mtx("m"), Callout()
    callout_init_mtx(c, m)
    callout_stop(c)

def different(vm):
    one, other = Thing(), Thing()
    assert one is other, f"{one!r}, {other!r} and {one!r}"

for scenario in (unlocked, different):
    try:
        explore(scenario, cpus=1)
    except Violation as violation:
        print(violation)
"""


def test_a_report_is_the_same_in_every_process(tmp_path: Path) -> None:
    """What is called by its address in memory has a number in the report, one and the same wherever it stands there."""
    script = tmp_path / "script.py"
    printed = []
    for first_line in ("", "junk = [object() for _ in range(2**17)]"):
        script.write_text(first_line + ADDRESS_SCRIPT, "utf-8")
        printed.append(subprocess.run([sys.executable, script], capture_output=True, text=True, check=True).stdout)
    first, second = printed

    assert first == second
    assert "it is the lock of <Callout at #1 on cpu 0: idle, lock 'm'>" in first
    assert "<__main__.Thing object at #1>, <__main__.Thing object at #2> and <__main__.Thing object at #1>" in first
