"""The chapter "Racing Timers" of the Unreliable Guide to Locking, and what follows from it.

A list has a lock. Each of its elements has a timer, whose handler H removes the element from the list and frees it. D,
the deleting thread, wants to destroy the whole list. One element is enough for the races.

The timer engine is as small as it can be: ``queued`` and ``running`` under the lock of its base. The state is the
base's, not the element's, so the engine itself does not look at a freed element unless that is queued.

Invariants: each element is freed once, and not used after that; D comes to an end; a timer that is deleted, and waited
for, is neither queued nor running.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from .._worlds.virtual.models import is_freed
from ..testing import VirtualSMP
from ._exhibit import Exhibit, Variant

Scenario = Callable[[VirtualSMP], None]

STOPPED: Final = 1
IDLE: Final = 0
RUNNING: Final = -1


class Element:
    """The one element of a list, with its timer, and the base on which that is queued."""

    def __init__(self, vm: VirtualSMP, *, armed: bool = True, rearms: bool = False) -> None:
        self.vm = vm
        self.lock = vm.lock("list")
        self.linked = vm.cell(True, "the list")
        self.element = vm.struct("the element", data=0)
        self.base_lock = vm.lock("base")
        self.base = vm.struct("base", queued=armed, running=False)
        self.rearms = rearms  # whether the handler arms the timer once more, in its first run

    def unlink_and_free(self) -> None:
        """Remove it from the list and free it. The lock of the list is held."""
        assert self.linked.value, "an element is removed from the list twice"
        self.linked.value = False
        self.vm.free(self.element)

    def removes(self) -> None:
        """Be a handler that removes and frees its element, as the Guide has it."""
        with self.lock:
            self.linked.value = False
            self.vm.free(self.element)

    def keeps(self) -> None:
        """Be a handler that leaves its element in the list."""

    def uses(self) -> None:
        """Be a handler that uses its element, and may arm the timer anew in its first run."""
        runs = self.element.data = self.element.data + 1
        if self.rearms and runs == 1:
            self.add()

    def expire(self, handler: Callable[[], None]) -> None:
        """Be the timer interrupt: run what is queued, and once more if the handler re-arms it."""
        for _ in range(2 if self.rearms else 1):
            with self.base_lock:
                if not self.base.queued:
                    return
                self.base.queued = False
                self.base.running = True
            handler()
            with self.base_lock:
                self.base.running = False

    def add(self) -> None:
        """Do as ``add_timer()``."""
        with self.base_lock:
            self.base.queued = True

    def delete(self) -> bool:
        """Do as ``del_timer()``: return whether it was pending, and wait for nothing."""
        with self.base_lock:
            pending: bool = self.base.queued
            self.base.queued = False
        return pending

    def try_to_delete(self) -> int:
        """Do as ``try_to_del_timer_sync()``: tell a timer that runs from one that is idle."""
        with self.base_lock:
            if self.base.running:
                return RUNNING
            pending: bool = self.base.queued
            self.base.queued = False
        return STOPPED if pending else IDLE

    def wait_for_handler(self) -> None:
        """Wait until the handler does not run."""
        self.vm.wait_until(lambda: not self.base.running, "the handler to return")

    def delete_sync(self) -> None:
        """Do as ``del_timer_sync()``: delete and wait, until it is neither queued nor running."""
        while self.try_to_delete() == RUNNING:
            self.wait_for_handler()


# -- destroying a list -------------------------------------------------------------------------------------------------


def naive(it: Element) -> None:
    """Delete the timer and free the element, whatever ``del_timer()`` says."""
    with it.lock:
        if it.linked.value:
            it.delete()
            it.unlink_and_free()


def retry(pause: Callable[[Element], None]) -> Callable[[Element], None]:
    """Return the Guide's: if ``del_timer()`` says 0, release the lock, pause and start over."""

    def destroy(it: Element) -> None:
        while True:
            with it.lock:
                if not it.linked.value:
                    return
                if it.delete():
                    it.unlink_and_free()
                    return
            pause(it)

    return destroy


def three_results(it: Element) -> None:
    """Leave an element to its handler only if that runs now."""
    while True:
        with it.lock:
            if not it.linked.value:
                return
            if it.try_to_delete() != RUNNING:
                it.unlink_and_free()
                return
        it.wait_for_handler()


def wait(it: Element) -> None:
    """Wait until the handler has removed the element."""
    it.vm.wait_until(lambda: not it.linked.value, "the handler to remove the element")


def relax(it: Element) -> None:
    """Spin, with a hint that others should run."""
    it.vm.relax()


def spin(it: Element) -> None:
    """Spin."""


def destroyed(
    destroy: Callable[[Element], None], handler: Callable[[Element], None] = Element.removes, *, armed: bool = True
) -> Scenario:
    """Return the scenario in which the list is destroyed while the timer may expire."""

    def scenario(vm: VirtualSMP) -> None:
        with vm.setup():
            it = Element(vm, armed=armed)

        def destroy_all() -> None:
            destroy(it)
            assert not it.linked.value, "the element is still in the list"
            assert is_freed(it.element), "nobody has freed the element"

        vm.spawn(it.expire, lambda: handler(it), name="timer")
        vm.spawn(destroy_all, name="destroyer")

    return scenario


# -- deleting a timer that is armed again ------------------------------------------------------------------------------


def delete(it: Element) -> None:
    """Delete it, and wait for nothing."""
    it.delete()


def delete_then_wait(it: Element) -> None:
    """Delete it and wait for its handler, once."""
    it.delete()
    it.wait_for_handler()


def rearmed(delete: Callable[[Element], None]) -> Scenario:
    """Return the scenario of a timer that is deleted, and whose element is freed, while its handler re-arms it."""

    def scenario(vm: VirtualSMP) -> None:
        with vm.setup():
            it = Element(vm, rearms=True)

        def destroy() -> None:
            delete(it)
            vm.free(it.element)

        vm.spawn(it.expire, it.uses, name="timer")
        vm.spawn(destroy, name="destroyer")

    return scenario


def rearmed_by_another(*, told: bool) -> Scenario:
    """Return the scenario in which another thread arms the timer while it is deleted; *told*: it is asked not to."""

    def scenario(vm: VirtualSMP) -> None:
        with vm.setup():
            it = Element(vm, armed=False)
            open_lock = vm.lock("device")
            is_open = vm.cell(True, "the device is open")

        def other() -> None:
            with open_lock:
                if is_open.value:
                    it.add()

        def destroy() -> None:
            if told:
                with open_lock:
                    is_open.value = False
            it.delete_sync()
            vm.free(it.element)

        vm.spawn(it.expire, it.uses, name="timer")
        vm.spawn(other, name="other")
        vm.spawn(destroy, name="destroyer")

    return scenario


GUIDE: Final = "Rusty Russell, Unreliable Guide to Locking, chapter Racing Timers: A Kernel Pastime"

EXHIBITS: Final[tuple[Exhibit, ...]] = (
    Exhibit(
        number="R3.1",
        title="Racing timers: the element is freed twice",
        story=(
            "A thread destroys a list. Each element has a timer, and the handler of the timer removes the element and "
            "frees it. The thread acquires the lock of the list, deletes each timer and frees each element. But a "
            "timer may have expired just before that. Its handler waits for the lock of the list, and del_timer() "
            "returns 0, since nothing is queued any more. The thread frees the element all the same. Then the handler "
            "gets the lock and frees it again. The remedy of the Guide: if del_timer() returns 0, leave the element to "
            "its handler, release the lock and start over."
        ),
        sources=(GUIDE,),
        variants=(
            Variant(
                "naive",
                "the result of del_timer() is not looked at",
                destroyed(naive),
                breaks="a double free",
                preemptions=1,
            ),
            Variant("start-over", "0 means: leave it to the handler, and start over", destroyed(retry(wait))),
        ),
    ),
    Exhibit(
        number="R3.2",
        title="Racing timers: 0 does not mean that the handler runs",
        story=(
            "The remedy of the Guide relies on something that it does not say: that a timer which is not pending has a "
            "handler that runs now and will remove the element. A timer that was never armed is not pending either. "
            "Nor is one whose handler has returned and has left its element in the list. Then the thread starts over "
            "for ever. Two results are too few. With three (stopped, running, idle) the thread leaves to the handler "
            "only what runs, and removes the rest itself."
        ),
        sources=(GUIDE, "Linux, kernel/time/timer.c, try_to_del_timer_sync()"),
        variants=(
            Variant(
                "never-armed",
                "two results, and a timer that was never armed",
                destroyed(retry(wait), armed=False),
                breaks="the handler to remove the element",
            ),
            Variant(
                "never-armed-spins",
                "the same with a loop that spins",
                destroyed(retry(relax), armed=False),
                breaks="no end after",
            ),
            Variant(
                "not-removed",
                "two results, and a handler that leaves its element in the list",
                destroyed(retry(wait), Element.keeps),
                breaks="the handler to remove the element",
            ),
            Variant(
                "three-results-never-armed",
                "three results, and a timer that was never armed",
                destroyed(three_results, armed=False),
            ),
            Variant(
                "three-results-not-removed",
                "three results, and a handler that leaves its element in the list",
                destroyed(three_results, Element.keeps),
            ),
            Variant(
                "three-results",
                "three results, and a handler that removes its element",
                destroyed(three_results),
            ),
        ),
    ),
    Exhibit(
        number="R3.3",
        title="Racing timers: the retry depends on a fair scheduler",
        story=(
            "The loop that starts over is right, and yet it ends only if the handler gets a turn. On a machine with "
            "one CPU for each thread it does. Under a scheduler that always lets the loop run, it never ends. So a "
            "program on threads or tasks must wait for the handler, not spin. A model checker needs fairness for such "
            "a loop: a thread that says that it gets nowhere has to let the others run first."
        ),
        sources=(GUIDE, "Madanlal Musuvathi and Shaz Qadeer, Fair Stateless Model Checking, PLDI 2008"),
        variants=(
            Variant(
                "spins",
                "a loop without a pause, and no fairness",
                destroyed(retry(spin)),
                breaks="no end after",
                preemptions=1,
            ),
            Variant("relaxes", "a loop with cpu_relax(), under a fair scheduler", destroyed(retry(relax))),
            Variant("waits", "no loop: it waits until the element is gone", destroyed(retry(wait))),
        ),
    ),
    Exhibit(
        number="R3.4",
        title="Racing timers: the handler arms its timer again",
        story=(
            "A timer that its own handler re-arms cannot be deleted by del_timer(): the handler may have begun, and "
            "adds the timer again afterwards. To wait for the handler does not help either, if that is done after the "
            "delete: what the handler has added meanwhile stays. del_timer_sync() deletes and waits until the timer is "
            "neither queued nor running, both seen under one lock. Even that holds only if nobody else arms the timer. "
            "If another thread does, it has to be told first."
        ),
        sources=(GUIDE, "Linux, kernel/time/timer.c, timer_delete_sync() and timer_shutdown_sync()"),
        variants=(
            Variant(
                "del-timer",
                "del_timer(), then free",
                rearmed(delete),
                breaks="which destroyer has freed",
                preemptions=1,
            ),
            Variant(
                "delete-then-wait",
                "del_timer(), wait for the handler, then free",
                rearmed(delete_then_wait),
                breaks="which destroyer has freed",
                preemptions=2,
            ),
            Variant("del-timer-sync", "del_timer_sync(), then free", rearmed(Element.delete_sync)),
            Variant(
                "another-arms",
                "del_timer_sync(), and another thread arms the timer after it",
                rearmed_by_another(told=False),
                breaks="which destroyer has freed",
            ),
            Variant(
                "another-is-told",
                "the other thread is told first; then del_timer_sync()",
                rearmed_by_another(told=True),
            ),
        ),
    ),
)
