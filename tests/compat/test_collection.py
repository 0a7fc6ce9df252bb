"""Emptying a collection whose elements destroy themselves by timer."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

import pytest
import trio

from callout import (
    ArgumentTypeError,
    ClosedError,
    Event,
    LoopThreadError,
    Mtx,
    SelfDrainError,
    SleepError,
    open_callouts,
)
from callout_linux.timer import (
    DEFINE_TIMER,
    add_timer_on,
    destroy_all,
    destroy_all_blocking,
    jiffies,
    mod_timer,
    timer_list,
    timer_pending,
    timer_setup,
)
from callout_linux.timer._collection import Collection
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
    """An element whose function runs, before or after it acquired its lock, is left to it and waited for."""
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


@pytest.mark.parametrize("make", [list, deque])
def test_elements_that_are_equal_are_told_apart(s: Stage, make: Callable[[list[Element]], Collection[Element]]) -> None:
    """Of two equal elements, of which one runs and re-arms itself, each is destroyed once, and none is left."""

    class Equal(Element):
        def __eq__(self, other: object) -> bool:
            return isinstance(other, Equal)

        __hash__ = None  # type: ignore[assignment]  # as a dataclass has it

    owner = Owner(s, s.mtx(), before="g", again=True)
    running, idle = s.do(Equal, owner, "running"), s.do(Equal, owner, "idle")
    s.do(mod_timer, running.timer, s.do(jiffies))
    s.tick()
    elements = make([running, idle])
    call = s.t1.begin(destroy_all_blocking, elements, owner.lock, Element.destroy)

    assert call.blocked
    assert [element.name for element in elements] == ["running"]

    s.open("g")
    call.result()

    assert list(elements) == []
    assert owner.destroyed == ["idle", "running"]


@pytest.mark.parametrize("running", [False, True])
@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt()])
def test_whatever_destroying_raises_comes_after_the_rest(s: Stage, error: BaseException, running: bool) -> None:
    """An exception that is no Exception neither loses elements nor keeps destroy_all() from coming back."""
    owner = Owner(s, s.mtx(), before="g", again=True)
    for name in ("a", "b"):
        s.do(owner.add, name)
    s.do(owner.add, "runs", 0 if running else None)
    s.tick()

    def destroy(element: Element) -> None:
        element.destroy()
        if element.name == ("runs" if running else "a"):
            raise error

    call = s.t1.begin(destroy_all_blocking, owner.elements, owner.lock, destroy)
    s.open("g")
    with pytest.raises(type(error)) as caught:
        call.result()

    assert caught.value is error
    assert owner.elements == []
    assert owner.destroyed == ["a", "b", "runs"]


@pytest.mark.trio
async def test_what_destroying_raises_after_the_wait_was_cancelled_is_a_callbacks() -> None:
    """A cancelled destroy_all() gives what was raised so far; what is raised at the end of a run goes to on_error."""
    began, gate = trio.Event(), threading.Event()
    home = trio.lowlevel.current_trio_token()
    late: list[BaseException] = []
    elements: list[timer_list] = []
    soon, last = ValueError("idle"), ValueError("running")

    def function(_: timer_list) -> None:
        home.run_sync_soon(began.set)
        gate.wait()

    async with open_callouts(cpus=2, on_error=lambda error, _: late.append(error)):
        running = DEFINE_TIMER(function)
        idle = DEFINE_TIMER(lambda _: None)
        elements += [running, idle]
        running.expires = jiffies + 0
        add_timer_on(running, 1)
        await began.wait()

        def destroy(timer: timer_list) -> None:
            raise last if timer is running else soon

        with trio.CancelScope() as scope:
            scope.cancel()
            with pytest.RaisesGroup(trio.Cancelled, ValueError) as caught:
                await destroy_all(elements, Mtx("list"), destroy, lambda timer: timer)

            assert soon in caught.value.exceptions

        gate.set()
    assert elements == []
    assert late == [last]


@pytest.mark.trio
async def test_destroy_all_is_refused_before_it_has_acted() -> None:
    """On a loop's thread, with a lock held, or in a timer's function: refused, and no element is touched."""
    async with open_callouts(cpus=1, checking=True):
        timers = [DEFINE_TIMER(lambda _: None) for _ in range(2)]
        for timer in timers:
            mod_timer(timer, jiffies + 1000)
        elements, destroyed = list(timers), list[timer_list]()
        errors: list[BaseException] = []
        done = Event()

        def refused(elements: list[timer_list]) -> object:
            return destroy_all(elements, Mtx("list"), destroyed.append, lambda timer: timer)

        def function(_: timer_list) -> None:
            try:
                refused(elements)
            except SelfDrainError as error:
                errors.append(error)
            done.set()

        with pytest.raises(LoopThreadError, match=r"destroy_all_blocking: .* use `await destroy_all"):
            destroy_all_blocking(elements, Mtx("list"), destroyed.append, lambda timer: timer)
        with Mtx("other"), pytest.raises(SleepError, match=r"destroy_all: .*'other'"):
            refused(elements)
        mod_timer(DEFINE_TIMER(function), jiffies + 0)
        await done.wait()

        assert len(errors) == 1
        assert elements == timers
        assert destroyed == []
        assert [timer_pending(timer) for timer in timers] == [1, 1]


def test_what_destroy_all_is_given_is_looked_at_first(s: Stage) -> None:
    """A dictionary, an asynchronous lock or destroyer, elements without a timer: refused, and no element is touched."""
    owner = Owner(s, s.mtx())
    element = s.do(owner.add, "pending", 5)

    async def destroy(_: object) -> None:
        """Would never run."""

    wrong: dict[str, tuple[object, object, object, object]] = {
        "a collection": ({1: element}, owner.lock, Element.destroy, lambda element: element.timer),
        "lock must be": ([element], trio.Lock, Element.destroy, lambda element: element.timer),
        "coroutine": ([element], owner.lock, destroy, lambda element: element.timer),
        "function": ([element], owner.lock, None, lambda element: element.timer),
        "timer_of must return": ([element], owner.lock, Element.destroy, lambda element: element),
    }
    call: Callable[..., None] = destroy_all_blocking
    for message, arguments in wrong.items():
        with pytest.raises(ArgumentTypeError, match=f"destroy_all_blocking: .*{message}"):
            s.do(call, *arguments)

    assert owner.destroyed == []
    assert s.do(timer_pending, element.timer) == 1


def test_an_element_that_is_in_the_list_twice_is_destroyed_once(s: Stage) -> None:
    """Both entries of it are taken out."""
    owner = Owner(s, s.mtx())
    element = s.do(owner.add, "pending", 5)
    twice = [element, element]
    destroyed: list[Element] = []
    call: Callable[..., None] = destroy_all_blocking
    s.do(call, twice, owner.lock, destroyed.append)

    assert twice == []
    assert destroyed == [element]


@pytest.mark.trio
async def test_an_element_of_a_closed_system_is_found_before_any_is_touched() -> None:
    """The error names the call, and every other element is as it was; so where one has no timer at all."""
    async with open_callouts():
        good = DEFINE_TIMER(print)
        mod_timer(good, jiffies + 10_000)
        async with open_callouts():
            closed = DEFINE_TIMER(print)
        elements = [good, closed]
        destroyed: list[timer_list] = []
        with pytest.raises(ClosedError, match=r"^destroy_all: "):
            await destroy_all(elements, Mtx("list"), destroyed.append, lambda it: it)
        with pytest.raises(ArgumentTypeError, match=r"^destroy_all: timer_of"):
            await destroy_all(elements, Mtx("list"), destroyed.append)

        assert elements == [good, closed]
        assert destroyed == []
        assert timer_pending(good) == 1


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
