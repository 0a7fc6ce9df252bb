"""Timers whose clock is moved by hand: what runs when, in which order, and what is refused; and what is given them."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import timedelta

import pytest
import trio
import trio.testing

from callout import (
    ArgumentTypeError,
    ArgumentValueError,
    BusyError,
    Callout,
    ClosedError,
    LivelockError,
    LockNotHeldError,
    LoopError,
    ReentrantCallError,
    ResetResult,
    SelfDrainError,
    SleepError,
    StopResult,
    callout_init,
    callout_reset,
    close_all_soon,
    open_callouts,
)
from callout._worlds.manual.platform import ManualWaiter
from callout.abc import Timers
from callout.testing import ManualTimers, VirtualSMP


def ignore() -> None:
    """Be a callback that does nothing."""


@pytest.fixture
def timers() -> ManualTimers:
    """Give some that stand at 0."""
    return ManualTimers()


def test_each_runs_at_its_own_time(timers: ManualTimers) -> None:
    """In the order of their times, with the clock standing there; what is due at the end of the way runs, too."""
    ran: list[tuple[str, float]] = []

    def run(name: str) -> None:
        ran.append((name, timers.current_time()))
        if name == "a":
            timers.call_later(0.5, run, "of a")
            timers.call_later(0, run, "at once")

    timers.call_later(2, run, "b")
    timers.call_later(1, run, "a")
    timers.call_at(3, run, "c")
    timers.call_later(timedelta(hours=1), run, "d")
    timers.call_later(3600 * 24 * 365, run, "e")

    timers.advance(0.999_999_999)
    assert ran == []
    timers.advance(2.000_000_001)
    assert ran == [("a", 1), ("at once", 1), ("of a", 1.5), ("b", 2), ("c", 3)]
    assert timers.current_time() == 3
    timers.advance(10_000)
    assert ran[5:] == [("d", 3600)]
    timers.advance(timedelta(days=400))
    assert ran[6:] == [("e", 3600 * 24 * 365)]


def test_the_clock_begins_where_it_is_told_to() -> None:
    """Deadlines count from there, below 0 as well; what is past is due at once."""

    def note(ran: list[float], timers: ManualTimers) -> None:
        ran.append(timers.current_time())

    for start in (1000, 0.25, -7.5):
        timers = ManualTimers(start)
        ran: list[float] = []
        c = timers.call_later(2, note, ran, timers)
        assert (timers.current_time(), c.deadline, c.remaining()) == (start, start + 2, 2)
        timers.call_at(start - 1, ran.append, 0)
        timers.advance(0)
        assert ran == [0]
        timers.advance(2)
        assert ran == [0, start + 2]


def test_methods_do_what_they_do_anywhere(timers: ManualTimers) -> None:
    """Arming anew, stopping, closing, periods, locks and names: it is the same engine."""
    ran: list[object] = []
    lock = timers.mutex("m")
    c = timers.call_later(5, ran.append, 1, lock=lock, name="one")
    p = timers.every(10, ran.append, "tick")
    with pytest.raises(LockNotHeldError):
        c.stop()
    with lock:
        assert c.stop() is StopResult.REMOVED
    assert c.reset(3) is ResetResult.ARMED
    assert c.reset(4, ran.append, 2) is ResetResult.REARMED
    timers.advance(35)
    assert ran == [2, "tick", "tick", "tick"]
    assert (p.missed, p.deadline, c.name, c.pending, c.deadline) == (0, 40, "one", False, math.inf)
    assert p.stop() is StopResult.REMOVED
    freed: list[str] = []
    with lock:
        assert close_all_soon([c, p], freed.append, "all")
    assert freed == []
    timers.advance(0)
    assert freed == ["all"]
    assert c.reset(1) is ResetResult.REFUSED


def test_what_callbacks_raise_comes_out_of_advance(timers: ManualTimers) -> None:
    """A single error as it is, several in a group, after all has run; the next call raises none of them again."""
    ran: list[int] = []

    def bad(error: BaseException) -> None:
        ran.append(1)
        raise error

    timers.call_later(1, bad, KeyError("a"))
    timers.call_later(2, ran.append, 2)
    with pytest.raises(KeyError, match="a"):
        timers.advance(5)
    assert (ran, timers.current_time()) == ([1, 2], 5)
    timers.call_later(1, bad, KeyError("b"))
    timers.call_later(2, bad, ValueError("c"))
    with pytest.RaisesGroup(KeyError, ValueError):
        timers.advance(5)
    timers.advance(5)


def test_an_interrupt_ends_it_where_it_stands(timers: ManualTimers) -> None:
    """What is due later is still scheduled."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    timers.call_later(1, interrupt)
    c = timers.call_later(2, print)
    with pytest.raises(KeyboardInterrupt):
        timers.advance(5)
    assert (timers.current_time(), c.pending) == (1, True)


def test_time_does_not_move_inside_a_callback(timers: ManualTimers) -> None:
    """A callback can neither advance nor close them, nor wait for itself; all is as before."""
    said: list[str] = []

    def inside() -> None:
        calls: list[Callable[[], None]] = [lambda: timers.advance(1), timers.close]
        for call in calls:
            with pytest.raises(ReentrantCallError, match="a callback of an advance"):
                call()
        for wait in (c.drain_sync, c.drain, c.aclose):
            with pytest.raises(SelfDrainError):
                wait()
        with pytest.raises(LoopError, match="nothing is awaited while another thread is in advance"):
            other.drain()  # type: ignore[unused-coroutine]  # it raises
        assert other.drain_sync() is True
        said.append("inside")

    other = timers.call_later(9, print)
    c = timers.call_later(1, inside)
    timers.advance(2)
    assert said == ["inside"]
    assert timers.current_time() == 2


def test_a_lock_that_is_held_is_an_error(timers: ManualTimers) -> None:
    """A callback may be waiting for it, and would for ever."""
    lock = timers.mutex("m")
    with lock:
        calls: list[Callable[[], None]] = [lambda: timers.advance(1), timers.close]
        for call in calls:
            with pytest.raises(SleepError, match=r"release .*m.* first"):
                call()
    assert timers.current_time() == 0


def test_a_callback_that_arms_itself_for_now_is_a_livelock(timers: ManualTimers) -> None:
    """The clock stands still while it runs, so there would be no end."""

    def again() -> None:
        c.reset(0)

    c = timers.call_later(1, again)
    with pytest.raises(LivelockError, match="arms itself for now"):
        timers.advance(1)
    assert timers.current_time() == 1


def test_another_thread_may_use_them(timers: ManualTimers) -> None:
    """It arms and stops at any time; while one is in advance() it cannot be, and can wait for what runs there."""
    running, go = threading.Event(), threading.Event()
    said: list[object] = []

    def run() -> None:
        running.set()
        assert go.wait(60)

    def thread() -> None:
        assert running.wait(60)
        with pytest.raises(BusyError, match="advance: another thread is in advance"):
            timers.advance(1)
        with pytest.raises(LoopError):
            c.drain()  # type: ignore[unused-coroutine]  # it raises
        said.append((c.running, c.reset(9), c.stop()))
        threading.Thread(target=go.set).start()
        said.append(c.drain_sync())

    c = timers.call_later(1, run)
    other = threading.Thread(target=thread)
    other.start()
    timers.advance(1)
    other.join()
    assert said == [(True, ResetResult.ARMED, StopResult.BOTH), False]


def test_softclock_waits_for_a_lock_that_another_thread_holds(
    timers: ManualTimers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """advance() blocks until it is released, and then the callback runs with it held."""
    lock = timers.mutex("m")
    held, parks, seen = threading.Event(), threading.Event(), list[bool]()
    new_waiter = timers._platform.waiter

    def waiter() -> ManualWaiter:
        parks.set()
        return new_waiter()

    monkeypatch.setattr(timers._platform, "waiter", waiter)

    def holder() -> None:
        with lock:
            held.set()
            assert parks.wait(60)  # until softclock is about to wait for it

    timers.call_later(1, lambda: seen.append(lock.owned()), lock=lock)
    thread = threading.Thread(target=holder)
    thread.start()
    assert held.wait(60)
    timers.advance(1)
    thread.join()
    assert seen == [True]


@pytest.mark.trio
async def test_nothing_has_to_be_waited_for(timers: ManualTimers) -> None:
    """While no thread is in advance() nothing runs, so every wait is over at once, on any loop."""
    c = timers.call_later(1, print)
    assert await c.drain() is True
    async with timers.call_later(1, print) as d:
        pass
    assert d.closed
    assert c.drain_sync() is False


def test_the_end_closes_them() -> None:
    """What is pending never runs, promised completions do; every later use is an error, but for another close."""
    ran: list[str] = []
    with ManualTimers() as timers:
        inside = Callout()
        callout_init(inside, 1)
        callout_reset(inside, 1000, ran.append, "C")
        c = timers.call_later(5, ran.append, "never")
        assert timers.call_later(1, print).close_soon(ran.append, "closed")
        with pytest.raises(BusyError), timers:
            pass
        timers.advance(1)
    assert ran == ["closed", "C"]
    assert not c.pending
    for use in (lambda: c.reset(1), lambda: timers.call_later(1, print), lambda: timers.advance(1), timers.__enter__):
        with pytest.raises(ClosedError):
            use()
    timers.close()
    assert repr(timers) == "<ManualTimers at 1 s, closed>"


def test_a_completion_that_fails_is_raised_by_the_close() -> None:
    """It has nowhere else to go."""

    def bad(what: str) -> None:
        raise KeyError(what)

    timers = ManualTimers()
    timers.call_later(1, print).close_soon(bad, "missing")
    with pytest.raises(KeyError, match="missing"):
        timers.close()


def test_they_tell_of_their_callouts(timers: ManualTimers) -> None:
    """What was counted and what is scheduled, by their clock; not when they were closed."""
    timers.call_later(1, ignore, name="first")
    timers.every(10, ignore, name="every")
    timers.advance(1)
    (info,) = timers.callouts()
    total = timers.stats().total

    assert (info.name, info.deadline, info.due_in, info.period) == ("every", 10, 9, 10)
    assert (total.armed, total.fired, total.pending, total.lateness.max) == (2, 1, 1, 0)
    timers.close()
    for call in (timers.stats, timers.callouts):
        with pytest.raises(ClosedError):
            call()


def test_wrong_arguments_are_refused(timers: ManualTimers) -> None:
    """By name, and the clock has not moved."""
    mistakes: list[tuple[type[Exception], str, Callable[[], object]]] = [
        (ArgumentTypeError, "ManualTimers: start", lambda: ManualTimers("0")),  # type: ignore[arg-type]  # that is the point
        (ArgumentValueError, "ManualTimers: start", lambda: ManualTimers(math.nan)),
        (ArgumentValueError, "ManualTimers: start", lambda: ManualTimers(1e300)),
        (ArgumentValueError, "ManualTimers: start", lambda: ManualTimers(-(10**400))),
        (ArgumentValueError, "advance: seconds must be from 0", lambda: ManualTimers().advance(10**5000)),
        (ArgumentValueError, "advance: seconds", lambda: timers.advance(-1)),
        (ArgumentTypeError, "advance: seconds", lambda: timers.advance("1")),  # type: ignore[arg-type]  # as above
    ]
    for kind, text, mistake in mistakes:
        with pytest.raises(kind, match=f"^{text}"):
            mistake()
    assert timers.current_time() == 0


def test_no_greenlet_is_needed() -> None:
    """Where that is not installed they can be imported, and work."""
    program = """if True:
        import sys
        sys.modules["greenlet"] = None
        from callout.testing import ManualTimers
        with ManualTimers() as timers:
            timers.call_later(1, print, "ran")
            timers.advance(1)
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout == "ran\n"


# -- what is given its timers ----------------------------------------------------------------------------------------


class Keepalive:
    """A protocol that knows no loop: it probes a silent peer, and counts it as dead after three probes."""

    def __init__(self, timers: Timers) -> None:
        self.timers = timers
        self.sent: list[float] = []
        self.dead = False
        self.timer = timers.call_later(30, self.on_silence)

    def on_data(self) -> None:
        """The peer has sent something."""
        self.sent.clear()
        self.timer.reset(30)

    def on_silence(self) -> None:
        """It has not."""
        if len(self.sent) == 3:
            self.dead = True
        else:
            self.sent.append(self.timers.current_time())
            self.timer.reset(10)


def test_a_protocol_under_manual_timers() -> None:
    """Step by step."""
    with ManualTimers(100) as timers:
        keepalive = Keepalive(timers)
        timers.advance(35)
        assert keepalive.sent == [130]
        keepalive.on_data()
        timers.advance(59)
        assert keepalive.sent == [165, 175, 185]
        assert not keepalive.dead
        timers.advance(0)
        assert keepalive.timer.deadline == 195
        timers.advance(1)
        assert keepalive.dead


@pytest.mark.trio
async def test_the_same_protocol_on_trio() -> None:
    """With the times that it has under manual ones."""
    clock = trio.testing.MockClock(autojump_threshold=0)

    async def main() -> None:
        async with open_callouts() as system:
            keepalive = Keepalive(system)
            await trio.sleep(35)
            keepalive.on_data()
            await trio.sleep(60.5)
            assert keepalive.sent == [65, 75, 85]
            assert keepalive.dead

    await trio.to_thread.run_sync(lambda: trio.run(main, clock=clock))


def test_the_same_protocol_on_virtual_cpus() -> None:
    """It comes to the same end."""
    with VirtualSMP() as vm:
        keepalive = Keepalive(vm)
        vm.settle()
        assert keepalive.dead
        assert len(keepalive.sent) == 3
        assert not keepalive.timer.pending
