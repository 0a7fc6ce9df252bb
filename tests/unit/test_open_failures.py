"""What goes wrong while a system is opened."""

from __future__ import annotations

import threading

import pytest

from callout import open_callouts


@pytest.mark.trio
@pytest.mark.parametrize("which", [1, 2, 3])
async def test_a_thread_that_cannot_be_started_leaves_nothing_behind(
    which: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error leaves the block, and the threads that did start are joined."""
    before = threading.active_count()
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

    assert threading.active_count() == before
