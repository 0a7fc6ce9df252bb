"""Threads of control: user threads, tasks, and the interrupt and the softclock of each CPU."""

from __future__ import annotations

import contextvars
import sys
from collections.abc import Callable
from types import FrameType
from typing import Final, Protocol

from ..._core import frames
from ..._core.platform import Thread
from .stacks import greenlet

THREAD: Final = "thread"
TASK: Final = "task"  # of a CPU's loop
SOFTCLOCK: Final = "softclock"
INTERRUPT: Final = "interrupt"

ENGINE: Final = (SOFTCLOCK, INTERRUPT)


class Blocker(Protocol):
    """What a context can wait for."""

    @property
    def label(self) -> str:
        """What it is, for a report."""
        ...

    def ready(self) -> bool:
        """Whether the wait is over."""
        ...


class Context:
    """One thread of control: a user thread, a CPU's interrupt, a CPU's softclock, or a task on a CPU."""

    __slots__ = (
        "body",
        "bound",
        "cpu",
        "cpu_locks",
        "entry",
        "error",
        "greenlet",
        "in_user",
        "kind",
        "name",
        "number",
        "pure",
        "result",
        "runs_loop",
        "thread",
        "timeouts",
        "turns",
        "variables",
        "waits_for",
    )

    def __init__(
        self, kind: str, name: str, cpu: int | None, bound: int, thread: Thread, number: int = 0, turns: int = 0
    ) -> None:
        self.kind = kind
        self.name = name
        self.cpu = cpu  # whose loop it is a task of
        self.bound = bound  # the current CPU, for a thread that is no loop
        self.thread = thread
        self.timeouts = 0  # how many of its sleeps have ended so
        self.runs_loop = False  # a thread in vm.run(): it runs a loop of its own meanwhile
        self.cpu_locks = 0  # how many it holds
        self.number = number  # in footprints: its start comes after what has spawned it
        self.turns = turns  # in footprints: each of its steps, for those that wait for its turn
        self.pure = kind in ENGINE  # what it runs now shares nothing that the platform does not see
        self.result: object = None  # what its function has returned
        self.in_user = 0  # engine contexts: how many callbacks they are in
        # The call of the package that it was in at its last switch point; None: no user's code has called anything.
        self.entry: object = self if kind in (THREAD, TASK) else None
        self.waits_for: Blocker | None = None
        self.error: BaseException | None = None
        self.body: Callable[[], object] | None = None  # until it has begun
        self.variables: contextvars.Context | None = None
        self.greenlet: greenlet.greenlet | None = None  # since it has begun

    def __repr__(self) -> str:
        return f"<{self.name}{'' if self.waits_for is None else f' waits for {self.waits_for.label}'}>"

    def place(self) -> str:
        """Return where in the user's code it stands, or an empty string if that is not known."""
        frame = self.frame()
        while frame is not None and frames.is_own(frame):
            frame = frame.f_back
        return "" if frame is None else frames.place(frame)

    def frame(self) -> FrameType | None:
        """Return the innermost frame of its stack that is the package's; None if it has not begun."""
        its = self.greenlet
        frame = sys._getframe(1) if its is greenlet.getcurrent() else None if its is None else its.gr_frame
        while frame is not None and not frames.is_own(frame):
            frame = frame.f_back  # a chooser's
        return frame


def one_lane(one: Context, other: Context) -> bool:
    """Whether the two are one, or the interrupt and the softclock of one CPU."""
    return one is other or (one.cpu == other.cpu and one.kind in ENGINE and other.kind in ENGINE)
