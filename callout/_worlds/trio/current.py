"""Which systems are open: on the loop of this thread, for code to which none is bound; and in this process, for forks.

A system is bound to the task that has opened it, and to what that starts; and by ``system.bound()``. Other tasks of the
same loop, the request handlers of a server whose lifespan task has opened the system among them, find it here.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Final

from ..._core.lifecycle import fork
from ..._core.machine import FINDERS, Machine
from .forked import forked

_OPEN: Final[dict[int, list[Machine]]] = {}  # a loop's thread -> its systems, outermost first
# Every system that lives. Python code that runs in a garbage collection may lose a Ctrl-C: the callback is C.
_MACHINES: Final[set[weakref.ref[Machine]]] = set()


def opened(machine: Machine) -> None:
    """This thread is the loop of one of the machine's CPUs from now on."""
    _MACHINES.add(weakref.ref(machine, _MACHINES.discard))
    _OPEN.setdefault(threading.get_ident(), []).append(machine)


def closed(machine: Machine) -> None:
    """This thread is not, any more; nothing happens if it never was."""
    me = threading.get_ident()
    here = [other for other in _OPEN.get(me, ()) if other is not machine]
    if here:
        _OPEN[me] = here
    else:
        _OPEN.pop(me, None)


def _innermost() -> Machine | None:
    here = _OPEN.get(threading.get_ident())
    return here[-1] if here else None


def _after_fork() -> None:
    """In a forked child: refuse every use of the parent's systems, and have its loop go no further."""
    for ref in list(_MACHINES):
        machine = ref()
        if machine is not None:
            fork(machine)
            for cpu in machine.cpus:
                cpu.calls.clear()  # they are the parent's to run
    forked(on_loop=threading.get_ident() in _OPEN)


FINDERS.append(_innermost)
os.register_at_fork(after_in_child=_after_fork)
