"""What a test has left behind: armed callouts, objects of slabs, threads, file descriptors."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from .. import Callout
from .._core import describe
from .._core.cpu import Cpu
from .._core.cpulock import acquire
from .._core.lifecycle import runs
from .._core.wheel import callouts_of
from ._slab import WATCHED, Slab, live

if TYPE_CHECKING:
    from .. import CalloutSystem

_LEFT: Final = pytest.StashKey[list[str]]()
_DESCRIPTORS: Final = Path("/dev/fd")
_IDLE: Final = "Trio thread "  # how trio calls a thread of its cache that has nothing to do


@contextmanager
def watched(node: pytest.Item) -> Iterator[list[str]]:
    """Look for what the block leaves behind: it is in the list when the block has ended."""
    left = node.stash[_LEFT] = []
    slabs: list[Slab[Any]] = []  # Any: slabs of whatever. They are kept, or what was forgotten would be gone with them
    explored = node.get_closest_marker("explore") is not None  # each schedule has slabs of its own
    if not explored:
        WATCHED.append(slabs)
    allocated = {id(each): each for each in live()}
    threads = _threads()
    descriptors = _descriptors()
    try:
        yield left
    finally:
        WATCHED[:] = [each for each in WATCHED if each is not slabs]
    if not explored:
        left += [f"{each}: it was not freed" for each in live() if id(each) not in allocated]
    left += [f"the thread {name!r}" for thread, name in _threads().items() if threads.get(thread) != name]
    if _descriptors().items() - descriptors.items():
        gc.collect()  # what only a cycle keeps open is not left behind
    left += [f"file descriptor {fd}: {what[-1]}" for fd, what in sorted(_descriptors().items() - descriptors.items())]


def note(node: pytest.Item, system: CalloutSystem) -> None:
    """Note what is armed in a system that is about to be left, if the test wants to know."""
    left = node.stash.get(_LEFT, None)
    if left is not None:
        origins = system._machine.origins
        for cpu in system._machine.cpus:
            for c in _armed(cpu):
                place = None if origins is None else origins.get(c)
                text = f"an armed callout on cpu {cpu.id}, function {describe.name_of(c.func)}"
                left.append(text if place is None else f"{text}, armed at {place}")


def _armed(cpu: Cpu) -> list[Callout]:
    """Return what is scheduled on a CPU."""
    acquire(cpu)
    try:
        armed = cpu.wheel.callouts()
        for lane in cpu.lanes:
            armed += callouts_of(lane.queue)
        armed += [run.callout for run in runs(cpu) if run.move is not None]
    finally:
        cpu.busy = False
        cpu.lock.release()
    return armed


def _threads() -> dict[threading.Thread, str]:
    """Return the threads that there are, and their names."""
    return {
        thread: thread.name
        for thread in threading.enumerate()
        if not thread.name.startswith(_IDLE) and not isinstance(thread, threading._DummyThread)
    }


def _descriptors() -> dict[int, tuple[int, int, str]]:
    """Return the descriptors that are open, and what they are; nothing where the operating system does not tell."""
    found = {}
    try:
        numbers = [int(each.name) for each in _DESCRIPTORS.iterdir()]
    except OSError:
        return {}
    for fd in numbers:
        try:
            status = os.fstat(fd)
        except OSError:  # the one that has listed them
            continue
        try:
            what = str((_DESCRIPTORS / str(fd)).readlink())
        except OSError:
            what = "open"
        found[fd] = status.st_dev, status.st_ino, what
    return found
