"""Judging one scenario: whatever an implementation does, raising, hanging or ending the process with ``sys.exit()``,
is a failure of that scenario, and the run goes on.

With a time limit, scenarios run in a daemon thread, as nothing else can be left while it hangs. What is left is told to
end, by an exception that Python raises in its threads as soon as they run bytecode again; so an
endless loop ends, and does not slow the others down. What waits in C stays until the process ends, and
``abandoned`` has its thread, for ``callout.cli`` to end the process without waiting for it.
"""

from __future__ import annotations

import contextlib
import ctypes
import inspect
import queue
import sys
import sysconfig
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final

from . import _words
from ._format import Scenario
from ._replay import Mismatch, Subsystem, replay_steps

Factory = Callable[[Scenario], Subsystem]

METHODS: Final = ("begin", "open_gate", "tick", "settle", "events", "state", "close")
_OURS: Final = str(Path(__file__).parent)
_STDLIB: Final = sysconfig.get_path("stdlib")
_PACKAGES: Final = (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))

abandoned: Final[list[threading.Thread]] = []


@dataclass(frozen=True)
class Failure:
    """Why a scenario failed."""

    kind: str  # the same for all that failed so
    lines: tuple[str, ...]
    step: int | None = None
    mismatch: Mismatch | None = None


@dataclass(frozen=True)
class Verdict:
    """What became of a scenario."""

    scenario: Scenario
    seed: int | None  # of the random order under which it ran
    seconds: float
    failure: Failure | None


class _Trial:
    """One scenario on one implementation."""

    def __init__(self, scenario: Scenario, factory: Factory) -> None:
        self.scenario = scenario
        self.factory = factory
        self.step: int | None = None
        self.phase = "the factory"
        self.found: Failure | None = None

    def run(self) -> Failure | None:
        """Return why it failed, or None."""
        try:
            subsystem = self.factory(self.scenario)
            if inspect.iscoroutine(subsystem):
                subsystem.close()
                return Failure("the factory returned a coroutine: it must not be async", ())
            missing = [name for name in METHODS if not callable(getattr(subsystem, name, None))]
            if missing:
                kind = f"the factory returned something of type {type(subsystem).__name__}, which has no "
                return Failure(kind + ", ".join(f"{name}()" for name in missing), ())
            try:
                self.phase = "the replay"
                mismatch = replay_steps(self.scenario, subsystem, self._note)
                if mismatch is not None:
                    self.found = Failure(mismatch.kind, tuple(mismatch.lines()), mismatch.step, mismatch)
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                self.found = self._raised(error)
            finally:
                self.phase = "close()"
                subsystem.close()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever somebody's implementation raises, SystemExit, too
            return self.found or self._raised(error)
        return self.found

    def hung(self, seconds: float, threads: Iterable[threading.Thread]) -> Failure:
        """Return what to say when it did not end."""
        where = [f"{thread.name} is {place}" for thread in threads if (place := _where(thread))]
        if self.found is not None:  # the first thing that went wrong counts
            lines = (*self.found.lines, f"close() then did not return within {seconds:g} s", *where)
            return Failure(self.found.kind, lines, self.found.step, self.found.mismatch)
        phase = self.phase if self.phase != "the replay" else "a step"
        return Failure(f"{phase} did not end within {seconds:g} s", (*self._at(), *where), self.step)

    def _note(self, number: int) -> None:
        self.step = number

    def _raised(self, error: BaseException) -> Failure:
        name, said = type(error).__name__, _said(error)
        what = f"raised {name}{f': {said}' if said else ''}"
        # What is not implemented is told apart by its text, anything else by its place: texts may name callouts.
        place = _place(traceback.walk_tb(error.__traceback__))
        kind = what if isinstance(error, NotImplementedError) or not place else f"raised {name} {place}"
        return Failure(kind, (*self._at(), f"{what}{f' {place}' if place else ''}, in {self.phase}"), self.step)

    def _at(self) -> tuple[str, ...]:
        return () if self.step is None else (_words.step(self.scenario, self.step),)


def _said(error: BaseException) -> str:
    try:
        return _words.text(str(error), 200)
    except Exception:  # somebody's __str__
        return ""


class Judge:
    """Judges scenarios one after the other.

    One thread serves as long as nothing hangs in it: a new one for each scenario takes seven times as long, as
    greenlets that outlive their thread are kept for ever.
    """

    def __init__(self, timeout: float | None) -> None:
        self._timeout = timeout
        self._worker: _Worker | None = None

    def judge(self, scenario: Scenario, factory: Factory, seed: int | None = None) -> Verdict:
        """Replay *scenario* on what *factory* makes.

        Raises KeyboardInterrupt, and nothing else.
        """
        begun = time.perf_counter()
        trial = _Trial(scenario, factory)
        failure = trial.run() if self._timeout is None else self._limited(trial, self._timeout)
        return Verdict(scenario, seed, time.perf_counter() - begun, failure)

    def _limited(self, trial: _Trial, seconds: float) -> Failure | None:
        if self._worker is None:
            self._worker = _Worker()
        worker = self._worker
        before = {*threading.enumerate()} - {worker.thread}
        worker.jobs.put(trial)
        try:
            answer = worker.answers.get(timeout=seconds)
        except queue.Empty:
            left = [each for each in threading.enumerate() if each not in before]
            failure = trial.hung(seconds, left)
            self._leave(worker)
            _end(left)
            return failure
        except KeyboardInterrupt:
            self._leave(worker)
            _end(each for each in threading.enumerate() if each not in before)
            raise
        if isinstance(answer, KeyboardInterrupt):
            raise answer
        return answer

    def _leave(self, worker: _Worker) -> None:
        self._worker = None
        worker.jobs.put(None)  # should it ever come back


class _Worker:
    """A thread that runs trials."""

    def __init__(self) -> None:
        self.jobs: queue.SimpleQueue[_Trial | None] = queue.SimpleQueue()
        self.answers: queue.SimpleQueue[Failure | KeyboardInterrupt | None] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._main, name="the replay", daemon=True)
        self.thread.start()

    def _main(self) -> None:
        with contextlib.suppress(SystemExit):  # that of _end(), which may come late
            while (trial := self.jobs.get()) is not None:
                try:
                    self.answers.put(trial.run())
                except KeyboardInterrupt as error:
                    self.answers.put(error)


def _end(threads: Iterable[threading.Thread]) -> None:
    for thread in threads:
        abandoned.append(thread)
        if thread.ident is not None:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))


def _where(thread: threading.Thread) -> str:
    frame = None if thread.ident is None else sys._current_frames().get(thread.ident)
    return "" if frame is None else _place(reversed(list(traceback.walk_stack(frame))))


def _place(frames: Iterable[tuple[FrameType, int]]) -> str:
    """Return where in somebody's own code the last of *frames* is."""
    found = ""
    for frame, line in frames:
        file = frame.f_code.co_filename
        library = file.startswith((_STDLIB, "<frozen")) and not file.startswith(_PACKAGES)
        if not library and not file.startswith(_OURS):
            found = f"at {Path(file).name}:{line} in {frame.f_code.co_name}()"
    return found


def place_of(error: BaseException) -> str:
    """Return where in somebody's own code *error* was raised."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"at {Path(error.filename).name}:{error.lineno}"
    return _place(traceback.walk_tb(error.__traceback__))
