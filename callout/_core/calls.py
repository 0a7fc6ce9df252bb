"""Cross-CPU calls: have a function run on the loop of a CPU, soon, and never inside one of its callbacks.

From any thread, at any instant, also from what interrupted the engine: no lock is acquired. Appending to a deque and
taking from it are atomic; a call that meets a closing CPU is either run by it or refused, never lost.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial

from .checks import check_func, refuse_unrun
from .cpu import Cpu
from .errors import ArgumentTypeError, ClosedError
from .guard import exposed, protected
from .phases import Use, admit, closed_text


def call_on(call: str, cpu: Cpu, func: Callable[..., object], args: tuple[object, ...]) -> None:
    r"""Have *func(\*args)* run once on the loop of *cpu*, for the function *call* of the API. Never blocks.

    Raises:
        ArgumentTypeError: *func* is no plain function.
        ClosedError: that CPU is gone; *func* will not run.
    """
    if isinstance(func, Coroutine):
        func.close()
        raise ArgumentTypeError(
            f"{call}: give the function and its arguments, not the coroutine that it has returned", call=call
        )
    check_func(call, func, "what is called must be a function")
    cross_call(cpu, partial(_call, func, args))


@exposed
def _call(func: Callable[..., object], args: tuple[object, ...]) -> None:
    """Run the user's code. What it returns must not be something that still wants to be run."""
    result = func(*args)
    if result is not None:
        refuse_unrun(func, result)


@protected
def cross_call(cpu: Cpu, thunk: Callable[[], None]) -> None:
    """Have *thunk* run once on the loop of *cpu*, in its interrupt context. Never blocks.

    What of it is the user's code is for it to expose: the engine's own, on which somebody waits, must not be cut off.

    Does nothing if it is called by a callback, a completion or a call while the machine quiesces.

    Raises:
        ClosedError: that CPU is gone; *thunk* will not run.
    """
    machine = cpu.machine
    if admit("call", machine, Use.CALL_INSIDE if machine.platform.in_callback() else Use.CALL):
        send(cpu, thunk)


@protected
def send(cpu: Cpu, thunk: Callable[[], None]) -> None:
    """Do as ``cross_call()``, whatever the phase: for what was promised. The lock of a CPU may be held.

    Raises:
        ClosedError: that CPU is gone; *thunk* will not run.
    """
    thunk = partial(thunk)  # an object of its own: the same function may be queued twice
    cpu.calls.append(thunk)
    if not cpu.open:
        # Either the closing CPU took it from the queue and ran it, or it is still there and nobody ever will.
        if not _take_back(cpu, thunk):
            return
        raise ClosedError(f"call: {closed_text(cpu.machine)}", call="call", cpu=cpu.id)
    cpu.machine.platform.interrupt(cpu.id)


def _take_back(cpu: Cpu, thunk: Callable[[], None]) -> bool:
    try:
        cpu.calls.remove(thunk)  # partials compare by identity
    except ValueError:
        return False
    return True


@protected
def run_calls(cpu: Cpu) -> None:
    """Run the cross-CPU calls that have come so far, in order."""
    for _ in range(len(cpu.calls)):
        try:
            thunk = cpu.calls.popleft()
        except IndexError:
            return
        try:
            thunk()
        except BaseException as error:
            cpu.machine.report(error, None)
