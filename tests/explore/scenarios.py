"""Scenarios that other processes can import."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from callout.testing import VirtualSMP

from .test_reduction import program


def generated(seed: int, vm: VirtualSMP) -> object:
    """Be one of the random programs of test_reduction.py."""
    return program(seed)(vm)


def counts(threads: int, times: int, vm: VirtualSMP) -> object:
    """Have threads add to a cell, in two steps."""
    cell = vm.cell(0, "count")

    def add() -> None:
        for _ in range(times):
            cell.value += 1

    for _ in range(threads):
        vm.spawn(add)
    vm.settle()
    return cell.peek()


def loses(least: int, vm: VirtualSMP) -> None:
    """Have two threads add to a cell, and say that it comes to so much at least."""
    result = counts(2, 3, vm)
    assert isinstance(result, int)
    assert result >= least, f"{result} is less than {least}"


class LocalError(Exception):
    """An error that cannot be unpickled."""

    def __init__(self, one: str, other: str) -> None:
        super().__init__(one)
        self.lambda_ = lambda: other


def raises(vm: VirtualSMP) -> None:
    """Raise that error in some schedules."""
    result = counts(2, 3, vm)
    if result == 2:
        raise LocalError("one", "other")


def ends(parent: int, vm: VirtualSMP) -> None:
    """End every process but one."""
    if os.getpid() != parent:
        os._exit(1)
    counts(2, 3, vm)


def interrupts(parent: int, once: str, vm: VirtualSMP) -> None:
    """Interrupt that process, once, from another one."""
    if os.getpid() != parent:
        try:
            Path(once).touch(exist_ok=False)
        except FileExistsError:
            pass
        else:
            os.kill(parent, signal.SIGINT)
    counts(3, 2, vm)


def differs(parent: int, vm: VirtualSMP) -> None:
    """Do something else in other processes."""
    if os.getpid() != parent:
        vm.point()
    counts(2, 3, vm)
