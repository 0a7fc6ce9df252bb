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

import errno
from collections.abc import Callable, Generator, Iterable
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeVar, overload
from warnings import warn

import trio

from callout import (
    ArgumentTypeError,
    ArgumentValueError,
    BusyError,
    CalloutError,
    ClosedError,
    Event,
    NotAwaitedError,
    NotInitializedError,
    Unfinished,
    check_callback,
    check_result,
    cpu_call,
    curcpu,
    mp_ncpus,
    on_cpu,
)

from ._base import run_function
from ._jiffies import looked_up, shown

T = TypeVar("T")
Func = Callable[[T], object]
Cond = Callable[[int, T], object]


class CrossCallError(CalloutError, RuntimeError):
    """A function that ran on another CPU raised what only means something where it was raised: ``StopIteration``,
    ``trio.Cancelled``. Its ``__cause__`` is that.
    """


# An await cannot pass these on: the interpreter, or trio, would take them for its own.
_NOT_TO_BE_PASSED_ON: Final = (StopIteration, StopAsyncIteration, GeneratorExit, trio.Cancelled)


class Sent(Unfinished):
    """Calls that were made, and that nobody waits for: there is no result, and nothing to await."""

    __slots__ = ()

    def remedy(self) -> str:
        """Return what to write instead. Never blocks."""
        return "smp_call_function: made with wait=False, which has no result; make the call with wait=True and await it"

    # Hidden from type checkers, which know by themselves that this cannot be awaited.
    if not TYPE_CHECKING:

        def __await__(self) -> Generator[Any, Any, int]:
            raise NotAwaitedError(
                "smp_call_function: made with wait=False, so there is nothing to await, and the functions may not have "
                "returned; make the call with wait=True",
                call="smp_call_function",
            )


class _Calls:
    """Calls that are made: how many are under way, and what has become of them."""

    __slots__ = ("call", "done", "errors", "left")

    def __init__(self, call: str, targets: int) -> None:
        # An item for each function that has not returned. They return on as many threads; taking from a list is
        # atomic, and of those who find it empty after that, one took the last.
        self.left = [None] * targets
        self.errors: list[tuple[BaseException, TracebackType | None]] = []
        self.done = Event() if targets else None
        self.call = call

    def run(self, func: Func[T], info: T) -> None:
        """Call the function on one of the CPUs, and note that it has returned."""
        try:
            run_function(func, info)
        except BaseException as error:  # the caller gets it
            self.errors.append((error, error.__traceback__))
        finally:
            self._one_less()

    def refused(self, error: Exception) -> None:
        """Note that a CPU did not take the call."""
        self.errors.append((error, error.__traceback__))
        self._one_less()

    def _one_less(self) -> None:
        self.left.pop()
        if not self.left and self.done is not None:
            self.done.set()

    def result(self) -> int:
        """Return 0, or raise what they have raised."""
        errors = [_passed_on(self.call, error, traceback) for error, traceback in self.errors]
        if len(errors) == 1:
            raise errors[0]
        if errors:
            raise BaseExceptionGroup(f"{self.call}: it has failed on several CPUs", errors)
        return 0


class Completion(Sent):
    """Calls that were made and can be waited for: ``await`` it, or ``wait_blocking()`` in a thread without a loop.

    Both give 0 when all functions have returned, and raise what they raised, whatever it is; several exceptions come
    as a ``BaseExceptionGroup``. ``StopIteration`` and ``trio.Cancelled`` come as a ``CrossCallError``. A waiter that is
    cancelled does not cancel the calls. If nobody ever waits, that is a ``RuntimeWarning``.
    """

    # The calls do not refer to it: it goes, and warns, when the caller has dropped it, however long they take.
    __slots__ = ("__weakref__", "_calls", "_waited")

    def __init__(self, calls: _Calls) -> None:
        self._calls = calls
        self._waited = False

    async def _wait(self) -> int:
        if self._calls.done is not None:
            await self._calls.done.wait()
        return self._calls.result()

    def __await__(self) -> Generator[Any, Any, int]:
        self._waited = True
        return self._wait().__await__()

    def wait_blocking(self) -> int:
        """Block the thread, which must not run an event loop (``LoopThreadError``), until all functions have
        returned.
        """
        self._waited = True
        if self._calls.done is not None:
            self._calls.done.wait_sync()
        return self._calls.result()

    def __repr__(self) -> str:
        return f"<{self._calls.call}(), to be awaited, at {id(self):#x}>"

    def remedy(self) -> str:
        """Return what to write instead. Never blocks."""
        call = self._calls.call
        return (
            f"{call}: `await` is missing: what it returns is no result yet, and nothing has been waited for; "
            f"write `await {call}(...)`, or, in a thread without a loop, {call}(...).wait_blocking()"
        )

    def __del__(self) -> None:
        if not self._waited:
            warn(f"{self._calls.call}(): called to be waited for, and never awaited", RuntimeWarning, stacklevel=1)


def _passed_on(call: str, error: BaseException, traceback: TracebackType | None) -> BaseException:
    """Return what the waiter is to get for *error*, with the traceback that it had where it was raised."""
    error.__traceback__ = traceback  # however often it was raised since
    if not isinstance(error, _NOT_TO_BE_PASSED_ON):
        return error
    passed = CrossCallError(f"{call}: the function raised {error!r}, which would mean something else here")
    passed.__cause__ = error
    return passed


_SENT: Final = Sent()


def _check_cpus(call: str, cpus: Iterable[int]) -> list[int]:
    """Return the CPUs, each once, all of them there."""
    there = looked_up(call, mp_ncpus)
    try:
        wanted = list(cpus)
    except TypeError:
        raise ArgumentTypeError(f"{call}: give a collection of CPU numbers, not {shown(cpus)}", call=call) from None
    for cpu in wanted:
        if type(cpu) is not int:
            raise ArgumentTypeError(f"{call}: a cpu must be an int, not {shown(cpu)}", call=call)
        if not 0 <= cpu < there:
            raise ArgumentValueError(
                f"{call}: there is no cpu {shown(cpu)}; this system has {there}, counted from 0", call=call
            )
    return list(dict.fromkeys(wanted))


def _send(call: str, cpus: list[int], func: Func[T], info: T, wait: int) -> Sent:
    """Make the calls; the one for the CPU on whose loop this runs comes last, on the spot."""
    check_callback(call, func)
    if not isinstance(wait, int):
        raise ArgumentTypeError(f"{call}: wait must be True or False, not {shown(wait)}", call=call)
    here = [cpu for cpu in cpus if on_cpu(cpu)]
    calls = _Calls(call, len(cpus)) if wait else None
    thunk = partial(run_function, func, info) if calls is None else partial(calls.run, func, info)
    closed: ClosedError | None = None
    for cpu in cpus:
        if cpu in here:
            continue
        try:
            cpu_call(cpu, thunk)
        except ClosedError as error:
            closed = error
            if calls is not None:
                calls.refused(error)
    for cpu in here:
        _on_the_spot(cpu, thunk)
    if calls is not None:
        return Completion(calls)
    if closed is not None:
        raise closed
    return _SENT


def _on_the_spot(cpu: int, thunk: Callable[[], object]) -> None:
    """Call it here and now, on the loop of *cpu*. What it raises is its CPU's to report, not the caller's."""
    try:
        thunk()
    except BaseException as error:
        try:
            cpu_call(cpu, _raise, error)
        except ClosedError:  # nobody is left to report it
            raise error from None


def _raise(error: BaseException) -> None:
    raise error


def smp_processor_id() -> int:
    """Return the number of the CPU on which this code runs; 0 for a thread that was not bound to another.

    Never blocks.
    """
    return looked_up("smp_processor_id", curcpu)


def num_online_cpus() -> int:
    """Return how many CPUs the current system has: all are online. Never blocks."""
    return looked_up("num_online_cpus", mp_ncpus)


def for_each_online_cpu() -> Iterable[int]:
    """Return the numbers of the CPUs, to loop over. Never blocks."""
    return range(looked_up("for_each_online_cpu", mp_ncpus))


@overload
def smp_call_function_single(cpu: int, func: Func[T], info: T, wait: Literal[True, 1]) -> Completion: ...
@overload
def smp_call_function_single(cpu: int, func: Func[T], info: T, wait: int) -> Sent: ...
def smp_call_function_single(cpu: int, func: Func[T], info: T, wait: int) -> Sent:
    """Have ``func(info)`` run once on CPU number *cpu*. Never blocks: with *wait*, ``await`` what it returns, with no
    lock held.

    Without *wait* what the function raises is treated as a callback's exception, on whichever CPU it ran.

    Raises:
        ClosedError: that CPU is closing and does not take the call. With *wait* this comes from the await.
        ArgumentTypeError, ArgumentValueError: *func* is a coroutine function or not callable, *cpu* not an int or not
            there.
    """
    return _send("smp_call_function_single", _check_cpus("smp_call_function_single", (cpu,)), func, info, wait)


@overload
def smp_call_function_any(cpus: Iterable[int], func: Func[T], info: T, wait: Literal[True, 1]) -> Completion: ...
@overload
def smp_call_function_any(cpus: Iterable[int], func: Func[T], info: T, wait: int) -> Sent: ...
def smp_call_function_any(cpus: Iterable[int], func: Func[T], info: T, wait: int) -> Sent:
    """Have ``func(info)`` run once on one CPU of *cpus*: the current one if it is among them, else the lowest. Never
    blocks; as ``smp_call_function_single()``.

    Raises:
        ArgumentValueError: also if *cpus* is empty (Linux returns ``-ENXIO``).
    """
    targets = _check_cpus("smp_call_function_any", cpus)
    if not targets:
        raise ArgumentValueError(
            "smp_call_function_any: give at least one CPU to choose from", call="smp_call_function_any"
        )
    here = curcpu()
    return _send("smp_call_function_any", [here if here in targets else min(targets)], func, info, wait)


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
    there = range(looked_up("smp_call_function", mp_ncpus))
    here = curcpu()
    return _send("smp_call_function", [cpu for cpu in there if cpu != here], func, info, wait)


@overload
def on_each_cpu(func: Func[T], info: T, wait: Literal[True, 1]) -> Completion: ...
@overload
def on_each_cpu(func: Func[T], info: T, wait: int) -> Sent: ...
def on_each_cpu(func: Func[T], info: T, wait: int) -> Sent:
    """Have ``func(info)`` run once on each CPU, this one included. Never blocks; as ``smp_call_function_single()``."""
    return _send("on_each_cpu", list(range(looked_up("on_each_cpu", mp_ncpus))), func, info, wait)


@overload
def on_each_cpu_mask(cpus: Iterable[int], func: Func[T], info: T, wait: Literal[True, 1]) -> Completion: ...
@overload
def on_each_cpu_mask(cpus: Iterable[int], func: Func[T], info: T, wait: int) -> Sent: ...
def on_each_cpu_mask(cpus: Iterable[int], func: Func[T], info: T, wait: int) -> Sent:
    """Have ``func(info)`` run once on each CPU of *cpus*, the current one included if it is among them. Never blocks;
    as ``smp_call_function_single()``.
    """
    return _send("on_each_cpu_mask", _check_cpus("on_each_cpu_mask", cpus), func, info, wait)


@overload
def on_each_cpu_cond(cond_func: Cond[T], func: Func[T], info: T, wait: Literal[True, 1]) -> Completion: ...
@overload
def on_each_cpu_cond(cond_func: Cond[T], func: Func[T], info: T, wait: int) -> Sent: ...
def on_each_cpu_cond(cond_func: Cond[T], func: Func[T], info: T, wait: int) -> Sent:
    """Have ``func(info)`` run once on each CPU for which ``cond_func(cpu, info)`` is true. Never blocks; as
    ``smp_call_function_single()``.

    The conditions are asked here, for all CPUs, before the first call is made; if one raises, none is.
    """
    there = list(range(looked_up("on_each_cpu_cond", mp_ncpus)))
    chosen = _chosen("on_each_cpu_cond", cond_func, info, there)
    return _send("on_each_cpu_cond", chosen, func, info, wait)


@overload
def on_each_cpu_cond_mask(
    cond_func: Cond[T] | None, func: Func[T], info: T, wait: Literal[True, 1], cpus: Iterable[int]
) -> Completion: ...
@overload
def on_each_cpu_cond_mask(
    cond_func: Cond[T] | None, func: Func[T], info: T, wait: int, cpus: Iterable[int]
) -> Sent: ...
def on_each_cpu_cond_mask(cond_func: Cond[T] | None, func: Func[T], info: T, wait: int, cpus: Iterable[int]) -> Sent:
    """Do as ``on_each_cpu_cond()`` with the CPUs of *cpus* only; without a condition (None) on all of them. Never
    blocks.
    """
    targets = _check_cpus("on_each_cpu_cond_mask", cpus)
    if cond_func is not None:
        targets = _chosen("on_each_cpu_cond_mask", cond_func, info, targets)
    return _send("on_each_cpu_cond_mask", targets, func, info, wait)


def _chosen(call: str, cond_func: Cond[T], info: T, cpus: list[int]) -> list[int]:
    check_callback(call, cond_func)
    chosen = []
    for cpu in cpus:
        result = cond_func(cpu, info)
        check_result(cond_func, result)
        if result:
            chosen.append(cpu)
    return chosen


class call_single_data_t(Generic[T]):  # noqa: N801 - the kernel's name
    """A call to be sent by ``smp_call_function_single_async()``, again and again: a function and its argument.

    It may be embedded in what it belongs to. It is free again, to be changed or sent, once its function has begun.
    """

    __slots__ = ("_free", "func", "info")

    func: Func[T]
    info: T

    def __init__(self, func: Func[T], info: T) -> None:
        """Make it. Never blocks.

        Raises:
            ArgumentTypeError: *func* is a coroutine function or not callable.
        """
        check_callback("call_single_data_t", func)
        self.func, self.info = func, info
        self._free: list[None] = [None]  # one item, for the call that sends it: popping from a list is atomic

    def run(self) -> None:
        """Be called on the target."""
        func, info = self.func, self.info
        self._free.append(None)  # before the call, as in Linux: the function may send it again
        run_function(func, info)


def INIT_CSD(csd: call_single_data_t[T], func: Func[T], info: T, /) -> None:  # noqa: N802 - the kernel's name
    """Give *csd* another function and argument. Never blocks.

    Raises:
        BusyError: it was sent, and its function has not begun yet.
        ArgumentTypeError: *func* is a coroutine function or not callable.
    """
    check_callback("INIT_CSD", func)
    if not _claim("INIT_CSD", csd):
        raise BusyError("INIT_CSD: this call was sent, and its function has not begun yet", call="INIT_CSD")
    csd.func, csd.info = func, info
    csd._free.append(None)


def _claim(call: str, csd: call_single_data_t[T]) -> bool:
    if not isinstance(csd, call_single_data_t):
        raise ArgumentTypeError(f"{call}: give a call_single_data_t, not {shown(csd)}", call=call)
    try:
        csd._free.pop()
    except IndexError:
        return False
    except AttributeError:
        raise NotInitializedError(
            f"{call}: this {type(csd).__qualname__} was never made: its __init__() did not call "
            "call_single_data_t.__init__()",
            call=call,
        ) from None
    return True


def smp_call_function_single_async(cpu: int, csd: call_single_data_t[T], /) -> int:
    """Send *csd* to CPU number *cpu*, which calls its function once. Never blocks, and there is nothing to wait for.

    Returns 0; ``-errno.EBUSY`` if it was sent before, and its function has not begun yet: then nothing was sent.

    What the function raises is treated as a callback's exception.

    Raises:
        ClosedError: that CPU is closing and does not take the call.
        ArgumentTypeError, ArgumentValueError: *csd* is no ``call_single_data_t``, *cpu* not an int or not there.
    """
    _check_cpus("smp_call_function_single_async", (cpu,))
    if not _claim("smp_call_function_single_async", csd):
        return -errno.EBUSY
    if on_cpu(cpu):
        _on_the_spot(cpu, csd.run)
        return 0
    try:
        cpu_call(cpu, csd.run)
    except BaseException:
        csd._free.append(None)
        raise
    return 0


__all__ = [
    "Completion",
    "Cond",
    "CrossCallError",
    "Func",
    "INIT_CSD",
    "Sent",
    "call_single_data_t",
    "for_each_online_cpu",
    "num_online_cpus",
    "on_each_cpu",
    "on_each_cpu_cond",
    "on_each_cpu_cond_mask",
    "on_each_cpu_mask",
    "smp_call_function",
    "smp_call_function_any",
    "smp_call_function_many",
    "smp_call_function_single",
    "smp_call_function_single_async",
    "smp_processor_id",
]
