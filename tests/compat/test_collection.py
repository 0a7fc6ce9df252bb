"""Emptying a collection whose elements destroy themselves by timer."""

from __future__ import annotations

import pytest

from callout import Event, Mtx, open_callouts
from callout_linux.timer import destroy_all, destroy_all_blocking, jiffies, mod_timer, timer_list, timer_setup
from tests.conformance.world import Stage


class Element:
    """An element of a list, which its timer takes out of the list and destroys."""

    def __init__(self, owner: Owner, name: str) -> None:
        self.owner = owner
        self.name = name
        self.timer = timer_list()
        timer_setup(self.timer, self.expire, 0)

    def expire(self, _: timer_list) -> None:
        """Be the timer's function."""
        self.owner.before(self)
        if self.owner.again:
            mod_timer(self.timer, jiffies + 1)
            return
        with self.owner.lock:
            self.owner.elements.remove(self)
        self.owner.after(self)
        self.destroy()

    def destroy(self) -> None:
        """Destroy it."""
        self.owner.destroyed.append(self.name)


class Owner:
    """The list, its lock, and what became of its elements."""

    def __init__(self, s: Stage | None, lock: Mtx, *, before: str = "", after: str = "", again: bool = False) -> None:
        self.s = s
        self.lock = lock
        self.gates = {"before": before, "after": after}
        self.again = again
        self.elements: list[Element] = []
        self.destroyed: list[str] = []

    def add(self, name: str, delta: int | None = None) -> Element:
        """Add an element; with *delta* its timer is armed."""
        element = Element(self, name)
        self.elements.append(element)
        if delta is not None:
            mod_timer(element.timer, jiffies + delta)
        return element

    def before(self, _: Element) -> None:
        """Stand at the gate before the lock, if there is one."""
        self._stand("before")

    def after(self, _: Element) -> None:
        """Stand at the gate after the lock, if there is one."""
        self._stand("after")

    def _stand(self, where: str) -> None:
        if self.s is not None and (gate := self.gates.pop(where, "")):
            self.s.world.wait_at_gate(gate, lambda: None)


def test_idle_and_pending_elements_are_destroyed_at_once(s: Stage) -> None:
    """Elements whose timer is pending or was never armed are destroyed, each once, without waiting."""
    owner = Owner(s, s.mtx())
    s.do(owner.add, "pending", 5)
    s.do(owner.add, "never armed")
    call = s.t1.begin(destroy_all_blocking, owner.elements, owner.lock, Element.destroy)

    assert not call.blocked
    assert owner.elements == []
    assert sorted(owner.destroyed) == ["never armed", "pending"]

    s.tick(10)

    assert len(owner.destroyed) == 2


@pytest.mark.parametrize("where", ["before", "after"])
def test_an_element_whose_function_runs_destroys_itself(s: Stage, where: str) -> None:
    """An element whose function runs, before or after it took its lock, is left to it and waited for."""
    owner = Owner(s, s.mtx(), before="g" * (where == "before"), after="g" * (where == "after"))
    s.do(owner.add, "running", 0)
    s.tick()
    s.do(owner.add, "never armed")
    call = s.t1.begin(destroy_all_blocking, owner.elements, owner.lock, Element.destroy)

    assert call.blocked
    assert owner.destroyed == ["never armed"]

    s.open("g")
    call.result()

    assert owner.elements == []
    assert owner.destroyed == ["never armed", "running"]


def test_an_element_whose_function_re_arms_is_destroyed_after_it(s: Stage) -> None:
    """A function that re-arms its timer instead is refused, and its element destroyed when it has returned."""
    owner = Owner(s, s.mtx(), before="g", again=True)
    s.do(owner.add, "running", 0)
    s.tick()
    call = s.t1.begin(destroy_all_blocking, owner.elements, owner.lock, Element.destroy)

    assert call.blocked
    assert owner.destroyed == []

    s.open("g")
    call.result()

    assert owner.destroyed == ["running"]

    s.tick(5)

    assert owner.destroyed == ["running"]


def test_what_destroying_raises_comes_after_the_rest(s: Stage) -> None:
    """If one element cannot be destroyed the others are, and the caller gets the exception; of several, a group."""
    owner = Owner(s, s.mtx())
    for name in ("a", "b", "c"):
        s.do(owner.add, name)

    def destroy(element: Element) -> None:
        element.destroy()
        if element.name in bad:
            raise ValueError(element.name)

    bad = {"a"}
    with pytest.raises(ValueError, match="a"):
        s.do(destroy_all_blocking, owner.elements, owner.lock, destroy)

    assert owner.destroyed == ["a", "b", "c"]

    for name in ("a", "b"):
        s.do(owner.add, name)
    bad = {"a", "b"}
    with pytest.raises(ExceptionGroup):
        s.do(destroy_all_blocking, owner.elements, owner.lock, destroy)


@pytest.mark.trio
async def test_emptying_a_set_from_a_task() -> None:
    """``await destroy_all()`` empties a set of elements of any kind, given a way to find their timers."""
    async with open_callouts(cpus=2):
        timers = [timer_list() for _ in range(100)]
        elements = set(enumerate(timers))
        lock = Mtx("elements")
        first = Event()
        destroyed: list[int] = []
        for number, timer in enumerate(timers):

            def expire(t: timer_list, number: int = number) -> None:
                with lock:
                    elements.remove((number, t))
                destroyed.append(number)
                first.set()

            timer_setup(timer, expire, 0)
            if number % 3:
                mod_timer(timer, jiffies + number % 7)
        await first.wait()
        await destroy_all(elements, lock, lambda element: destroyed.append(element[0]), lambda element: element[1])

        assert elements == set()
        assert sorted(destroyed) == list(range(100))
