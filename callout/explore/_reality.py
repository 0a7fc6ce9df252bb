"""What a scenario may not use: real time, chance, real locks, threads, loops and processes.

On virtual CPUs each of them means something else, or nothing. A scenario that reads a real clock does something else in
each run; one that sleeps waits for nobody; a real lock that is held at a switch point stops everything; a real thread
runs beside the schedule and not in it. A certificate would say nothing about any of that.

They are noticed in the first run of a search, by a profile function (``sys.setprofile``) of this thread: nothing is
patched, other threads see nothing, and all other runs are as fast as without it. The call is not made: an error is
raised in its place, which ends the run also if it is caught.

Only calls that stand in *the user's code* are noticed: in no file of the standard library, of ``site-packages`` or of
this package. So ``logging``, ``uuid`` and pytest may look at the clock. Not noticed is what the first schedule does not
come to; what code in C calls (``map()``, a ``partial``), or the standard library does for the user (a lock in an
``ExitStack``); and a lock in ``with`` that is found by more than names and attributes. If another profile function is
active, nothing is.
"""

from __future__ import annotations

import _asyncio
import _thread
import contextlib
import datetime as dt
import dis
import inspect
import os
import random
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from types import BuiltinFunctionType, CodeType, FrameType, ModuleType
from typing import Final

from .._core import frames
from ._outcome import NotModelledError
from ._profile import profiled

TIME: Final = "time is virtual there: use ticks() or sbinuptime()"
SLEEP: Final = "nothing passes there meanwhile: use pause_sync(), or a callout"
CHANCE: Final = "its runs must be repeatable: make a random.Random(seed) in the scenario"
LOCK: Final = "it stops all virtual CPUs when it is held: use Mtx, or vm.lock()"
QUEUE: Final = "it stops all virtual CPUs when it waits: use a deque under an Mtx, with a condition variable"
THREAD: Final = "it runs beside the schedule: use vm.spawn()"
LOOP: Final = "it runs beside the schedule: let the scenario, or what vm.spawn() starts, be a coroutine function"
TASK: Final = "there is no loop of that kind: use vm.spawn(async_function, cpu=0)"
CANCEL: Final = (
    "nothing is cancelled there: use a callout, or a wait that has a timeout, as tsleep() and cv_timedwait()"
)
OPEN: Final = "a system is open there, with the CPUs and the hz of explore(): leave it out"
PROCESS: Final = "it runs beside the schedule"
AWAIT: Final = "only callout's own awaitables can be waited for there: use pause(), or an Event of callout's"

_LOCKS: Final = (_thread.LockType, type(threading.RLock()))
_CLOCKS: Final = ("time", "monotonic", "perf_counter", "process_time", "thread_time", "clock_gettime")

# Functions that are written in C, where this platform has them.
_BUILTINS: Final[dict[object, tuple[str, str]]] = {
    getattr(module, name): (f"{module.__name__.lstrip('_')}.{name}()", remedy)
    for module, names, remedy in (
        (time, [name + end for name in _CLOCKS for end in ("", "_ns")], TIME),
        (time, ["sleep"], SLEEP),
        (select, ["select"], SLEEP),
        (os, ["urandom", "getrandom"], CHANCE),
        (os, ["fork", "forkpty", "system", "posix_spawn", "posix_spawnp"], PROCESS),
        (_thread, ["start_new_thread", "start_new", "start_joinable_thread"], THREAD),
        (_asyncio, ["get_running_loop", "get_event_loop"], LOOP),
    )
    for name in names
    if hasattr(module, name)
}
# With so many arguments they are about the present time.
_PRESENT: Final[dict[object, int]] = {time.localtime: 0, time.gmtime: 0, time.ctime: 0, time.strftime: 1}

# Functions that are written in Python, by module and name.
_FUNCTIONS: Final = {
    ("threading", "Thread.start"): THREAD,
    ("threading", "Thread.join"): THREAD,
    ("threading", "Event.wait"): LOCK,
    ("threading", "Condition.wait"): LOCK,
    ("threading", "Condition.__enter__"): LOCK,
    ("threading", "Semaphore.acquire"): LOCK,
    ("threading", "Barrier.wait"): LOCK,
    **{("queue", f"Queue.{name}"): QUEUE for name in ("get", "put", "get_nowait", "put_nowait", "join")},
    ("concurrent.futures.thread", "ThreadPoolExecutor.submit"): THREAD,
    ("concurrent.futures._base", "Executor.map"): THREAD,
    ("concurrent.futures.process", "ProcessPoolExecutor.submit"): PROCESS,
    ("concurrent.futures.process", "ProcessPoolExecutor.map"): PROCESS,
    ("multiprocessing.process", "BaseProcess.start"): PROCESS,
    ("multiprocessing.context", "BaseContext.Pool"): PROCESS,
    ("multiprocessing.context", "BaseContext.Manager"): PROCESS,
    ("multiprocessing.pool", "Pool.__init__"): PROCESS,
    ("multiprocessing.pool", "ThreadPool.__init__"): THREAD,
    ("subprocess", "Popen.__init__"): PROCESS,
    ("subprocess", "run"): PROCESS,
    ("subprocess", "call"): PROCESS,
    ("subprocess", "check_call"): PROCESS,
    ("subprocess", "check_output"): PROCESS,
    ("subprocess", "getoutput"): PROCESS,
    ("subprocess", "getstatusoutput"): PROCESS,
    ("os", "popen"): PROCESS,
    **{("os", f"spawn{how}"): PROCESS for how in ("l", "le", "lp", "lpe", "v", "ve", "vp", "vpe")},
    **{("selectors", f"{kind}.select"): SLEEP for kind in ("SelectSelector", "EpollSelector", "KqueueSelector")},
    ("selectors", "_PollLikeSelector.select"): SLEEP,
    ("asyncio.runners", "run"): LOOP,
    ("asyncio.runners", "Runner.run"): LOOP,
    ("asyncio.base_events", "BaseEventLoop.run_until_complete"): LOOP,
    ("asyncio.tasks", "create_task"): TASK,
    ("asyncio.tasks", "ensure_future"): TASK,
    ("asyncio.tasks", "gather"): TASK,
    ("callout._worlds.trio.opening", "open_callouts"): OPEN,
    ("secrets", "token_bytes"): CHANCE,
    ("secrets", "token_hex"): CHANCE,
    ("secrets", "token_urlsafe"): CHANCE,
    ("secrets", "randbelow"): CHANCE,
}
# Those of trio that need its loop, in whatever module of it they are.
_OF_TRIO: Final = {
    "run": LOOP,
    "start_guest_run": LOOP,
    "open_nursery": TASK,
    "spawn_system_task": TASK,
    "CancelScope.__enter__": CANCEL,
    "move_on_after": CANCEL,
    "move_on_at": CANCEL,
    "fail_after": CANCEL,
    "fail_at": CANCEL,
    "current_effective_deadline": CANCEL,
    "current_time": TIME,
    "current_clock": TIME,
    "current_task": LOOP,
    "current_root_task": LOOP,
    "current_trio_token": LOOP,
    "current_statistics": LOOP,
}
_LOOPS: Final = ("trio", "asyncio")

_STDLIB: Final = os.path.dirname(os.__file__) + os.sep  # noqa: PTH120 - what the frames' file names begin with
_INSTALLED: Final = tuple(f"{os.sep}{folder}{os.sep}" for folder in ("site-packages", "dist-packages"))
_EXPLORE: Final = os.path.dirname(__file__) + os.sep  # noqa: PTH120 - as above
_PACKAGE: Final = os.path.dirname(os.path.dirname(__file__)) + os.sep  # noqa: PTH120 - as above


_OURS: Final = 0
_USERS: Final = 1
_OTHERS: Final = 2
_whose: Final[dict[str, int]] = {}  # by the file's name, which has its hash: code objects have not


def _whose_is(code: CodeType) -> int:
    """Return whose code that is."""
    file = code.co_filename
    whose = _whose.get(file)
    if whose is None:
        if frames.is_own_code(code) or file.startswith(_EXPLORE):
            whose = _OURS
        elif file.startswith((_STDLIB, "<frozen ", _PACKAGE)) or any(folder in file for folder in _INSTALLED):
            whose = _OTHERS
        else:
            whose = _USERS
        _whose[file] = whose
    return whose


def _package(frame: FrameType | None) -> str:
    return "" if frame is None else str(frame.f_globals.get("__name__", "")).partition(".")[0]


def _caller(frame: FrameType) -> FrameType | None:
    """Return what has called that: what ``with`` calls through ``contextlib``, the function that has the ``with``."""
    caller = frame.f_back
    while caller is not None and caller.f_code.co_filename == contextlib.__file__:
        caller = caller.f_back
    return caller


def _of_function(frame: FrameType, caller: FrameType | None) -> tuple[str, str] | None:
    """Return what is wrong with the call of a function that is written in Python, if anything is."""
    code = frame.f_code
    package = _package(frame)
    if code.co_flags & inspect.CO_COROUTINE and package in _LOOPS and _package(caller) != package:
        return f"{package}.{code.co_qualname}()", AWAIT
    if caller is None or _whose_is(caller.f_code) != _USERS:
        return None
    if code.co_filename == random.__file__:
        return _of_random(frame)
    if package == "trio":
        remedy = _OF_TRIO.get(code.co_qualname)
    else:
        remedy = _FUNCTIONS.get((frame.f_globals.get("__name__", ""), code.co_qualname))
    return None if remedy is None else (f"{package}.{code.co_qualname}()", remedy)


def _of_builtin(function: object, frame: FrameType) -> tuple[str, str] | None:
    """Return what is wrong if that frame calls a function that is written in C, if anything is."""
    if not isinstance(function, BuiltinFunctionType):
        return None
    its, name = function.__self__, function.__name__
    if its is random._inst or isinstance(its, random.SystemRandom):  # the module's own
        return f"random.{name}()", CHANCE
    if type(its) in _LOCKS:
        return ("the acquire() of a threading.Lock", LOCK) if name in ("acquire", "__enter__") else None
    if isinstance(its, type) and issubclass(its, dt.date):
        return (f"datetime.{name}()", TIME) if name in ("now", "utcnow", "today") else None
    if type(its) is ModuleType:
        if function in _PRESENT:
            return (f"time.{name}()", TIME) if _arguments(frame) == _PRESENT[function] else None
        return _BUILTINS.get(function)
    module = type(its).__module__
    if module == "_queue":  # SimpleQueue
        return (f"queue.{type(its).__name__}.{name}()", QUEUE) if name.startswith(("get", "put")) else None
    if module == "select":  # poll, epoll, kqueue
        return (f"select.{type(its).__name__}.{name}()", SLEEP) if name in ("poll", "control") else None
    return None


def _arguments(frame: FrameType) -> int | None:
    """Return how many arguments the call has that a function is about to make; None if that cannot be told."""
    code, at = frame.f_code.co_code, frame.f_lasti
    return code[at + 1] if dis.opname[code[at]] == "CALL" else None


def _of_random(frame: FrameType) -> tuple[str, str] | None:
    """Return what is wrong with a call of the module ``random``: nothing, if the user has seeded its generator."""
    name = frame.f_code.co_name
    if name == "__init__":
        return ("random.Random()", CHANCE) if frame.f_locals.get("x", 0) is None else None
    its = frame.f_locals.get("self")
    if its is random._inst or isinstance(its, random.SystemRandom):  # the module's own
        return f"random.{name}()", CHANCE
    if name == "seed" and frame.f_locals.get("a", 0) is None:
        return "random.Random.seed()", CHANCE
    return None


# -- with lock: --------------------------------------------------------------------------------------------------------

_NAMES: Final = ("LOAD_FAST", "LOAD_FAST_CHECK", "LOAD_DEREF", "LOAD_GLOBAL", "LOAD_NAME")


@lru_cache(maxsize=4096)
def _entered(code: CodeType) -> tuple[tuple[str, ...], ...]:
    """Return what that code has in ``with``, as far as it is a name with attributes: ``("self", "lock")``."""
    out = []
    before: list[dis.Instruction] = []
    for each in dis.get_instructions(code):
        if each.opname == "BEFORE_WITH":
            path: list[str] = []
            while before and before[-1].opname == "LOAD_ATTR":
                path.insert(0, before.pop().argval)
            if before and before[-1].opname in _NAMES:
                out.append((before[-1].argval, *path))
        before.append(each)
    return tuple(out)


def _real_lock(frame: FrameType) -> str:
    """Return the real lock that a function had in ``with`` when it returns, as it is called there."""
    for name, *attributes in _entered(frame.f_code):
        value = frame.f_locals.get(name, frame.f_globals.get(name))
        for attribute in attributes:  # without running any code of the user's
            try:
                value = object.__getattribute__(value, "__dict__").get(attribute)
            except AttributeError:
                value = None
        if type(value) in _LOCKS:
            return ".".join((name, *attributes))
    return ""


# -- noticing ----------------------------------------------------------------------------------------------------------


@contextmanager
def noticing(fail: Callable[[BaseException], object]) -> Iterator[None]:
    """Notice it in the block. *fail* is told what ends the run, which is raised at the end of the block, too.

    Raises:
        NotModelledError: something was noticed.
    """
    if sys.getprofile() is not None:
        yield
        return
    found: list[NotModelledError] = []

    def profile(frame: FrameType, event: str, arg: object) -> None:
        whose = _whose_is(frame.f_code)
        if whose == _OURS and frame.f_code.co_name != "open_callouts":
            return
        wrong: tuple[str, str] | None = None
        at: FrameType | None = frame
        if event == "call":
            at = _caller(frame)
            wrong = _of_function(frame, at)
        elif whose != _USERS:
            pass
        elif event == "c_call":
            wrong = _of_builtin(arg, frame)
        elif event == "return":
            name = _real_lock(frame)
            wrong = (f"`with {name}:`, a threading.Lock", LOCK) if name else None
        if wrong is None or at is None:
            return
        what, remedy = wrong
        error = NotModelledError(f"explore: the scenario uses {what}, at {frames.place(at)}; {remedy}", call="explore")
        found.append(error)
        fail(error)
        raise error  # and Python calls this no more

    try:
        with profiled(profile):
            yield
    finally:
        if found:
            raise found[0]
