"""What goes wrong while a system is opened: it fails whole, and leaves no trace."""

from __future__ import annotations

import errno
import threading
from contextlib import nullcontext

import pytest
import trio

from callout import Callout, NoSystemError, callout_init, callout_reset, open_callouts
from callout._worlds.trio import opening
from callout._worlds.trio.event_timer import EventTimer
from callout._worlds.trio.platform import TrioPlatform
from tests.conformance.loops import holdings


@pytest.mark.trio
@pytest.mark.parametrize("which", [1, 2, 3])
async def test_a_thread_that_cannot_be_started_leaves_nothing_behind(
    which: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error leaves the block, and the threads that did start are joined."""
    before = holdings()
    start = threading.Thread.start
    started: list[str] = []

    def start_until(thread: threading.Thread) -> None:
        if thread.name.startswith("callout-cpu"):
            started.append(thread.name)
            if len(started) == which:
                raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_until)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        async with open_callouts(cpus=4):
            pytest.fail("the block must not be entered")

    assert holdings() == before


@pytest.mark.trio
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("which", [0, 1, 2])
async def test_a_cpu_without_a_descriptor(which: int, nested: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU that gets no event timer fails the open as it is, before the body; what was current before is current."""
    before = holdings()
    made: list[EventTimer] = []
    new_timer = TrioPlatform.new_timer

    def failing(platform: TrioPlatform) -> EventTimer:
        if threading.current_thread().name == (f"callout-cpu{which}" if which else "MainThread"):
            raise OSError(errno.EMFILE, "Too many open files")
        made.append(new_timer(platform))
        return made[-1]

    async with open_callouts() if nested else nullcontext() as outer:
        with monkeypatch.context() as patch:
            patch.setattr(TrioPlatform, "new_timer", failing)
            with pytest.raises(OSError, match="Too many open files"):
                async with open_callouts(3):
                    pytest.fail("the block must not be entered")
        if outer is not None:
            c, ran = Callout(), trio.Event()
            callout_init(c, 1)
            assert c.c_cpu.machine is outer._machine
            callout_reset(c, 1, lambda arg: ran.set(), None)
            await ran.wait()
        else:
            with pytest.raises(NoSystemError):
                callout_init(Callout(), 1)

    assert holdings() == before


@pytest.mark.trio
@pytest.mark.parametrize("step", ["_come_up", "enter"])
async def test_a_failure_half_way(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error at any step of the opening comes out as it is, and nothing is left."""
    before = holdings()

    def failing(*args: object) -> None:
        raise MemoryError(step)

    with monkeypatch.context() as patch:
        patch.setattr(opening, step, failing)
        with pytest.raises(MemoryError, match=step):
            async with open_callouts(2):
                pytest.fail("the block must not be entered")

    assert holdings() == before
    with pytest.raises(NoSystemError):
        callout_init(Callout(), 1)
