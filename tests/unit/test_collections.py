"""No Python code of the package runs in a garbage collection: a Ctrl-C that it meets there would be lost."""

from __future__ import annotations

import _thread
import gc
import operator
import signal
import sys
import weakref
from collections.abc import Iterator
from types import FrameType

import pytest
import trio

from callout import Callout, Cv, Mtx, callout_init, callout_init_mtx, cv_broadcast, cv_wait_sync, open_callouts, wakeup
from callout._core.weak import WeakValues
from callout.explore import explore
from callout.testing import Slab, VirtualSMP

Garbage = list[object]


class Trip(weakref.ref[object]):
    """A reference that can have a Ctrl-C arrive, without running any Python code."""

    trip = _thread.interrupt_main


def tripped_by(obj: object) -> Trip:
    """Return a reference that does so when *obj* dies."""
    return Trip(obj, operator.methodcaller("trip"))


class Silent:
    """What runs no Python code when it dies."""

    ring: object = None


class Node:
    """What can be freed, and be garbage."""

    def __init__(self) -> None:
        self.ring: object = None
        self.timer = Callout()

    def __del__(self) -> None:
        """What was freed has another one."""


@pytest.fixture
def collector() -> Iterator[None]:
    """Collect nothing but when told to, and have Ctrl-C raise KeyboardInterrupt, as in any program."""
    gc.collect()
    gc.disable()
    old = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, old)
        gc.enable()


def freed_in_a_cycle() -> None:
    """Leave a freed object as garbage, of a class of its own."""

    class Mine(Node):
        pass

    slab: Slab[Node] = Slab("node")
    node = slab.alloc(Mine)
    node.ring = node
    slab.free(node)


def leaked_in_a_cycle() -> None:
    """Leave a slab as garbage, with an object that was never freed."""

    class Mine(Node):
        pass

    slab: Slab[Node] = Slab("node")
    node = slab.alloc(Mine)
    node.ring = slab, node


def explored() -> None:
    """Leave what an exploration leaves, with classes of its own."""

    def scenario(vm: VirtualSMP) -> None:
        class Timer(Callout):
            __slots__ = ("ring",)

        class Session(Node):
            def __init__(self) -> None:
                self.ring = self
                self.timer = Timer()
                self.lock = Mtx("session")
                callout_init_mtx(self.timer, self.lock)

        slab: Slab[Session] = Slab("session")
        slab.free(slab.alloc(Session))
        timer = Timer()
        callout_init(timer, 1)
        timer.ring = timer  # type: ignore[attr-defined]  # added by name
        mtx, cv, ready = Mtx("m"), Cv(), Garbage()

        def wait() -> None:
            with mtx:
                while not ready:
                    cv_wait_sync(cv, mtx)

        vm.spawn(wait)
        with mtx:
            ready.append(1)
            cv_broadcast(cv)

    explore(scenario, cpus=1, bound=1)


def opened_and_closed() -> None:
    """Leave a system that was closed."""

    async def main() -> None:
        async with open_callouts():
            wakeup(Node())

    trio.run(main)


LEAVES = (freed_in_a_cycle, leaked_in_a_cycle, explored, opened_and_closed)


@pytest.mark.parametrize("leave", LEAVES)
def test_a_collection_runs_no_python_code_of_the_package(leave: type[object], collector: None) -> None:
    """What tests, explorations and systems leave behind is collected without one call of a Python function of ours,
    or of a weak table.
    """
    called: list[str] = []

    def note(frame: FrameType, event: str, arg: object) -> None:
        module = str(frame.f_globals.get("__name__"))
        if event == "call" and module.partition(".")[0] in ("callout", "weakref", "_weakrefset"):
            called.append(f"{module}.{frame.f_code.co_qualname}")

    leave()
    sys.setprofile(note)
    try:
        gc.collect()
    finally:
        sys.setprofile(None)

    assert called == []


def test_no_python_function_of_the_package_is_told_of_collections() -> None:
    """Neither a function of the package is in ``gc.callbacks``, nor an instance of a class of it."""
    ours = [
        callback
        for callback in gc.callbacks
        for its in (callback, type(callback))
        if str(getattr(its, "__module__", "")).partition(".")[0] == "callout"
    ]

    assert ours == []


def test_a_ctrl_c_in_a_collection_arrives(collector: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Ctrl-C that comes while freed objects are collected is raised where the program goes on, once."""
    lost: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lost.append)
    first, last = Silent(), Silent()
    first.ring, last.ring = first, last
    trips = [tripped_by(first), tripped_by(last)]
    freed_in_a_cycle()
    del first
    freed_in_a_cycle()
    del last

    with pytest.raises(KeyboardInterrupt):
        gc.collect()
    gc.collect()

    assert lost == []
    assert [ref() for ref in trips] == [None, None]


def test_a_table_of_weak_values_forgets_what_has_died() -> None:
    """What has died is not found, and takes no more room than what lives."""
    table: WeakValues[Node] = WeakValues()
    kept = [Node() for _ in range(10)]
    for key in range(1000):
        table.set(key, kept[key] if key < len(kept) else Node())

    assert [table.get(key) for key in range(len(kept))] == kept
    assert table.get(500) is None
    assert len(table) <= 2 * len(kept) + 16

    table.pop(0)
    table.pop(0)

    assert table.get(0) is None
