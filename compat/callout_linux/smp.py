"""Cross-CPU calls: have a function run on other CPUs, once on each, and wait for it or not.

The function runs on the loop of its CPU, in interrupt context: soon, and never in the middle of a callback of that
CPU. It is called on the spot, as in Linux, if it is for the CPU on whose loop the caller runs. Calls that one CPU
makes to another run in the order in which they were made.

Every call is a record of its own that dies with it, so any number may be under way, also to the same CPU and back to
back. (The kernel recycled one record a CPU, and of 2010's races with it one is a test here:
tests/race/test_linux_smp.py.)

Source: kernel/smp.c and include/linux/smp.h of Linux 6.12.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from functools import partial
from typing import Any, Final, Literal, TypeVar, overload

from callout import (
    ArgumentTypeError,
    ArgumentValueError,
    ClosedError,
    Event,
    check_callback,
    cpu_call,
    curcpu,
    mp_ncpus,
    on_cpu,
)

T = TypeVar("T")
Func = Callable[[T], object]


class Sent:
    """Calls that were made, and that nobody waits for."""

    __slots__ = ()


class Completion(Sent):
    """Calls that were made and can be waited for: ``await`` it, or ``wait_blocking()`` in a thread without a loop.

    Both give 0 when all functions have returned, and raise what they raised; several exceptions come as an
    ``ExceptionGroup``. Whoever is cancelled while he waits does not cancel the calls.
    """

    __slots__ = ("_done", "_errors", "_left")

    def __init__(self, targets: int) -> None:
        """Expect *targets* calls of ``run()`` or ``refused()``; of none, there is nothing to wait for. Never blocks."""
        # An item for each function that has not returned. They return on as many threads; taking from a list is
        # atomic, and of those who find it empty after that, one took the last.
        self._left = [None] * targets
        self._errors: list[Exception] = []
        self._done = Event() if targets else None

    def run(self, func: Func[T], info: T) -> None:
        """Call the function on one of the CPUs, and note that it has returned."""
        try:
            func(info)
        except Exception as error:  # the caller gets it
            self._errors.append(error)
        finally:
            self._one_less()

    def refused(self, error: Exception) -> None:
        """Note that a CPU did not take the call."""
        self._errors.append(error)
        self._one_less()

    def _one_less(self) -> None:
        self._left.pop()
        if not self._left and self._done is not None:
            self._done.set()

    def _result(self) -> int:
        if len(self._errors) == 1:
            raise self._errors[0]
        if self._errors:
            raise ExceptionGroup("a cross-CPU call has failed on several CPUs", self._errors)
        return 0

    async def _wait(self) -> int:
        if self._done is not None:
            await self._done.wait()
        return self._result()

    def __await__(self) -> Generator[Any, Any, int]:
        return self._wait().__await__()

    def wait_blocking(self) -> int:
        """Block the thread, which must not run an event loop (``LoopThreadError``), until all functions have
        returned.
        """
        if self._done is not None:
            self._done.wait_sync()
        return self._result()


_NOTHING: Final = Completion(0)


def _check_cpus(call: str, cpus: Iterable[int]) -> list[int]:
    """Return the CPUs, each once, all of them there."""
    there = mp_ncpus()
    try:
        wanted = list(dict.fromkeys(cpus))
    except TypeError:
        raise ArgumentTypeError(f"{call}: give a collection of CPU numbers, not {cpus!r}") from None
    for cpu in wanted:
        if type(cpu) is not int:
            raise ArgumentTypeError(f"{call}: a cpu must be an int, not {cpu!r}")
        if not 0 <= cpu < there:
            raise ArgumentValueError(f"{call}: there is no cpu {cpu}; this system has {there}, counted from 0")
    return wanted


def _send(call: str, cpus: list[int], func: Func[T], info: T, wait: int) -> Completion:
    """Make the calls; the one for the CPU on whose loop this runs comes last, on the spot."""
    check_callback(call, func)
    completion = Completion(len(cpus)) if wait else _NOTHING
    thunk = partial(completion.run, func, info) if wait else partial(func, info)
    here = False
    closed: ClosedError | None = None
    for cpu in cpus:
        if on_cpu(cpu):
            here = True
            continue
        try:
            cpu_call(cpu, thunk)
        except ClosedError as error:
            closed = error
            if wait:
                completion.refused(error)
    if here:
        thunk()
    if closed is not None and not wait:
        raise closed
    return completion


def smp_processor_id() -> int:
    """Return the number of the CPU on which this code runs; 0 for a thread that was not bound to another.

    Never blocks.
    """
    return curcpu()


@overload
def smp_call_function_single(cpu: int, func: Func[T], info: T, wait: Literal[True, 1]) -> Completion: ...
@overload
def smp_call_function_single(cpu: int, func: Func[T], info: T, wait: int) -> Sent: ...
def smp_call_function_single(cpu: int, func: Func[T], info: T, wait: int) -> Sent:
    """Have ``func(info)`` run once on CPU number *cpu*. Never blocks: with *wait*, ``await`` what it returns, with no
    lock held.

    Without *wait* what the function raises is treated as a callback's exception.

    Raises:
        ClosedError: that CPU is closing and does not take the call. With *wait* this comes from the await.
        ArgumentTypeError, ArgumentValueError: *func* is a coroutine function or not callable, *cpu* not an int or not
            there.
    """
    return _send("smp_call_function_single", _check_cpus("smp_call_function_single", (cpu,)), func, info, wait)


@overload
def smp_call_function_many(cpus: Iterable[int], func: Func[T], info: T, wait: Literal[True, 1]) -> Completion: ...
@overload
def smp_call_function_many(cpus: Iterable[int], func: Func[T], info: T, wait: int) -> Sent: ...
def smp_call_function_many(cpus: Iterable[int], func: Func[T], info: T, wait: int) -> Sent:
    """Have ``func(info)`` run once on each CPU of *cpus* but the current one. Never blocks; as
    ``smp_call_function_single()``.

    A function that raises does not keep the others from running.
    """
    targets = _check_cpus("smp_call_function_many", cpus)
    here = curcpu()
    return _send("smp_call_function_many", [cpu for cpu in targets if cpu != here], func, info, wait)


@overload
def smp_call_function(func: Func[T], info: T, wait: Literal[True, 1]) -> Completion: ...
@overload
def smp_call_function(func: Func[T], info: T, wait: int) -> Sent: ...
def smp_call_function(func: Func[T], info: T, wait: int) -> Sent:
    """Have ``func(info)`` run once on each CPU but the current one. Never blocks; as ``smp_call_function_single()``."""
    here = curcpu()
    return _send("smp_call_function", [cpu for cpu in range(mp_ncpus()) if cpu != here], func, info, wait)


@overload
def on_each_cpu(func: Func[T], info: T, wait: Literal[True, 1]) -> Completion: ...
@overload
def on_each_cpu(func: Func[T], info: T, wait: int) -> Sent: ...
def on_each_cpu(func: Func[T], info: T, wait: int) -> Sent:
    """Have ``func(info)`` run once on each CPU, this one included. Never blocks; as ``smp_call_function_single()``."""
    return _send("on_each_cpu", list(range(mp_ncpus())), func, info, wait)


__all__ = [
    "Completion",
    "Func",
    "Sent",
    "on_each_cpu",
    "smp_call_function",
    "smp_call_function_many",
    "smp_call_function_single",
    "smp_processor_id",
]
