"""Makes docs/reference.md, and two tables of docs/design.md, from docstrings and from the engine's own tables.

``python tests/unit/reference.py`` writes them, test_docs.py compares.

What a name does is said in its docstring and nowhere else. Here is only what has no docstring: the order of things,
what constants mean, and a few words between.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, pairwise
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NamedTuple

import callout
from callout._api.making import Making
from callout._core.phases import ADMITS, Admission, Phase
from callout._core.rules import table

ROOT: Final = Path(__file__).parents[2]
PATH: Final = ROOT / "docs" / "reference.md"
DESIGN: Final = ROOT / "docs" / "design.md"
ROOMS: Final = (
    "_core",
    "_locks",
    "_api",
    "_worlds",
    "_worlds/trio",
    "_worlds/guest",
    "_worlds/virtual",
    "_worlds/manual",
)

HEAD: Final = """\
# Reference

<!-- Made by tests/unit/reference.py from docstrings: change those. -->

Every public name of `callout`, and of its modules `callout.guest`, `callout.freebsd13`, `callout.abc`,
`callout.testing`, `callout.explore` and `callout.conformance`. The timers of Linux are in [linux.md](linux.md).

What is not said to block never blocks for longer than a lock is held, and may be called from any thread. Every error
is raised before anything has changed. What changes a callout or waits for one raises `NotInitializedError` if it was
never initialised, `ClosedError` after its system was closed and `ForkedError` in a forked child; that is not repeated
below.
"""

RULES: Final = f"""\
On which CPU a callout runs, and in which context:

{table()}

1. A direct callback runs in the clock interrupt, so its lock must be a spin mutex; without a lock it runs on CPU 0.
2. A callback under Giant runs on CPU 0.
3. A callback under a shared lock runs on CPU 0: such a lock does not exclude its other holders.

Naming another CPU where the table says CPU 0 is not an error: the callout goes to CPU 0. `CALLOUT_SHAREDLOCK` means
nothing for a mutex. Once armed directly, a callout stays direct until it is initialised anew.
"""

RESULTS: Final = """\
| call | 1 | 0 | -1 |
| --- | --- | --- | --- |
| `callout_stop` | it was pending, or waiting for the lock that the caller holds: it will not run | it is running \
and cannot be stopped, or it stands cancelled at its lock; a queued next run is gone | nothing was scheduled or \
running |
| `callout_drain`, `callout_terminate` | a scheduled run was removed; one in progress, if there was one, has ended | | \
nothing was scheduled, or only a deferred migration, which is removed; a run in progress, if there was one, has ended |
| `callout_reset`, `callout_schedule` | a scheduled run was replaced, or a run that waits for its lock was cancelled | \
nothing was scheduled; or the callout is drained or terminated, and nothing was armed | |
| `callout_drain_async` | something is outstanding: the function **will** be called, exactly once | nothing is: it \
will **not** be called | |
| `callout_async_drain` of FreeBSD 13 | stopped, the function will **not** be called | it **will** be called | nothing \
was scheduled or running, it will **not** be called |
| `callout_barrier` | there was a run in progress, which has ended | there was none | |

The senses of the two asynchronous drains are opposite. That is history, not a mistake here.

1 from `callout_stop` means that the callback will not run. It does not mean that softclock is done with the callout's
lock: before you free anything, drain.
"""

CLASSIC_ARMING: Final = [
    f"callout_{verb}{how}"
    for verb in ("reset", "schedule")
    for how in ("", "_on", "_curcpu", "_sbt", "_sbt_on", "_sbt_curcpu")
]

# Names for types in the modules beside callout.
ALIASES: Final = {"Event": "a list, an event of a trace; `FORMAT.md` says which there are."}

# What has no docstring.
MEANINGS: Final[Mapping[str, str]] = {
    "Seconds": "a length of time, wherever a method takes one",
    "CALLOUT_RETURNUNLOCKED": "the callback releases its lock itself",
    "CALLOUT_SHAREDLOCK": "take an rwlock or rmlock for reading",
    "CALLOUT_TRYLOCK": "try the lock, never wait for it; if it is taken, try again a little later",
    "C_ABSOLUTE": "the time is one of `sbinuptime()`",
    "C_DIRECT_EXEC": "run in the clock interrupt, not by softclock",
    "C_HARDCLOCK": "round the time up to a clock tick",
    "C_PRECALC": "time and precision come from `callout_when()`",
    "ARM_IF_IDLE": "only if no run is scheduled",
    "ARM_IF_PENDING": "only if a run is scheduled",
    "ARM_IF_EARLIER": "only if none is scheduled, or one for a later time",
    "ARM_STAY": "a callout that runs keeps its CPU, and a deferred migration is replaced",
    "ARM_UNCHANGED": "leave everything as it is if a run is scheduled for this very tick",
    "core": '`"compiled"` or `"pure"`: which core runs; `CALLOUT_PURE=1` in the environment chooses the pure one',
    "CALLOUT_REMOVED": "fact: a scheduled run was there",
    "CALLOUT_RUNNING": "fact: a run is in progress",
    "MTX_DEF": "an ordinary mutex",
    "MTX_SPIN": "a spin mutex: the only kind that a direct callback may have",
    "MTX_RECURSE": "its owner may take it again",
    "MTX_DUPOK": "two of its class may be held together",
    "MTX_NOWITNESS": "it is in no order of locks",
    "RW_DUPOK": "two of its class may be held together",
    "RW_RECURSE": "the writer may acquire it again",
    "RW_NOWITNESS": "it is in no order of locks",
    "RM_DUPOK": "two of its class may be held together",
    "RM_NOWITNESS": "it is in no order of locks",
    "RM_RECURSE": "the writer may acquire it again",
    "RM_SLEEPABLE": "may be held by a thread that blocks in a drain; may not be a callout's lock",
    "MA_OWNED": "this thread holds it",
    "MA_NOTOWNED": "this thread does not hold it",
    "MA_RECURSED": "with `MA_OWNED`: more than once",
    "MA_NOTRECURSED": "with `MA_OWNED`: once",
    "RA_LOCKED": "this thread has it, for reading or writing",
    "RA_RLOCKED": "this thread has it for reading",
    "RA_WLOCKED": "this thread has it for writing",
    "RA_UNLOCKED": "this thread does not have it",
    "PCATCH": "accepted; there are no signals that could end a sleep",
    "PDROP": "leave the mutex released when the sleep is over",
    "SBT_1S": "a second",
    "SBT_1M": "a minute",
    "SBT_1MS": "a millisecond, rounded down",
    "SBT_1US": "a microsecond, rounded down",
    "SBT_1NS": "a nanosecond, rounded down",
    "SBT_MAX": "the largest time, some 68 years",
}


class Group(NamedTuple):
    """One section of the page."""

    title: str
    text: str
    names: Sequence[str]


LOCK_PREFIXES: Final = ("mtx_", "rw_", "rm_")
LOCK_CALLS: Final = [name for name in callout.__all__ if name.startswith(LOCK_PREFIXES)]
ERRORS: Final = [
    name
    for name in callout.__all__
    if inspect.isclass(thing := getattr(callout, name)) and issubclass(thing, callout.CalloutError)
]

GROUPS: Final = (
    Group(
        "The system",
        "The functions that take no callout mean the *current* system: the one that is bound here by "
        "`with system.bound():`, else the innermost one that is open on the loop of this thread. Callbacks and the "
        "tasks of a system's CPUs find their own.",
        [
            "open_callouts",
            "CalloutSystem",
            "CpuHandle",
            "giant",
            "core",
            "hz",
            "ticks",
            "sbinuptime",
            "curcpu",
            "mp_ncpus",
            "mp_maxid",
            "CPU_FOREACH",
            "tick_sbt",
            "on_cpu",
            "cpu_call",
            "Event",
        ],
    ),
    Group(
        "The Python spelling",
        "Methods, seconds and keywords: see [timers.md](timers.md). Each does what the C name does that its "
        "description names, by the same code, and both may be used for one callout. The methods of a callout are "
        "those of `Callout`, below; those that make one are the system's.",
        [
            "Seconds",
            "ResetResult",
            "StopResult",
            "Periodic",
            "TimedNursery",
            "TimeoutTask",
            "drain_all",
            "aclose_all",
            "close_all_soon",
            "current_system",
        ],
    ),
    Group(
        "Looking inside",
        "What a system has done, and what it has to do: see [looking-inside.md](looking-inside.md).",
        [
            "SystemStats",
            "CpuStats",
            "Histogram",
            "CalloutInfo",
            "Trace",
            "TraceEvent",
            "TraceKind",
        ],
    ),
    Group(
        "Callouts",
        "",
        [
            "Callout",
            "callout_init",
            "callout_init_mtx",
            "callout_init_rw",
            "callout_init_rm",
            "CALLOUT_RETURNUNLOCKED",
            "CALLOUT_SHAREDLOCK",
            "CALLOUT_TRYLOCK",
            "callout_pending",
            "callout_active",
            "callout_deactivate",
        ],
    ),
    Group("The three rules", RULES, []),
    Group("Results", RESULTS, []),
    Group(
        "Arming",
        "",
        [
            *CLASSIC_ARMING,
            "callout_when",
            "C_ABSOLUTE",
            "C_DIRECT_EXEC",
            "C_HARDCLOCK",
            "C_PRECALC",
            "C_PREL",
            "C_PRELGET",
        ],
    ),
    Group(
        "Stopping and waiting",
        "",
        [
            "callout_stop",
            "callout_drain",
            "callout_drain_sync",
            "callout_drain_async",
            "callout_drain_all",
            "callout_drain_all_async",
            "draining",
            "callout_barrier",
            "callout_barrier_sync",
            "callout_terminate",
            "callout_terminate_sync",
        ],
    ),
    Group(
        "What other timer APIs need",
        "callout(9) has none of these. They are for ports of other kernels' timers. Where callout(9) has a result of "
        "its own for each call, they return two facts, or'ed together: `CALLOUT_REMOVED` and `CALLOUT_RUNNING`. None "
        "of them asks for the callout's lock.",
        [
            "callout_arm",
            "callout_arm_on",
            "callout_arm_curcpu",
            "callout_armed_with",
            "ARM_IF_IDLE",
            "ARM_IF_PENDING",
            "ARM_IF_EARLIER",
            "ARM_STAY",
            "ARM_UNCHANGED",
            "CALLOUT_REMOVED",
            "CALLOUT_RUNNING",
            "callout_dequeue",
            "callout_running",
            "callout_executing",
            "callout_terminated",
            "callout_quiesce",
            "callout_quiesce_sync",
            "callout_barrier_all",
            "callout_barrier_all_sync",
            "check_callback",
            "check_result",
            "check_current",
            "check_wait",
            "check_barrier_all",
            "must_await",
            "Unfinished",
        ],
    ),
    Group(
        "Sleeping",
        "sleep(9) and condvar(9), for tasks and threads alike. What blocks in C is awaited; a thread without a loop "
        "has the twin whose name ends in `_sync`. A sleeper has released its mutex, and holds it again when it comes "
        "back, however it does. A channel is told apart by identity. Sleep in a loop that tests the condition.",
        [
            "msleep",
            "msleep_sync",
            "msleep_sbt",
            "msleep_sbt_sync",
            "msleep_spin",
            "msleep_spin_sync",
            "tsleep",
            "tsleep_sync",
            "pause",
            "pause_sync",
            "pause_sbt",
            "pause_sbt_sync",
            "wakeup",
            "wakeup_one",
            "PCATCH",
            "PDROP",
            "Cv",
            "cv_init",
            "cv_destroy",
            "cv_wait",
            "cv_wait_sync",
            "cv_timedwait",
            "cv_timedwait_sync",
            "cv_signal",
            "cv_broadcast",
        ],
    ),
    Group(
        "Locks",
        "A lock belongs to the system that was current when it was made, and is owned by a thread. It is held for a "
        "few lines of plain code, never across an `await`.",
        [
            "Mtx",
            "RwLock",
            "RmLock",
            *LOCK_CALLS,
            *(n for n in callout.__all__ if n.startswith(("MTX_", "RW_", "RM_", "MA_", "RA_"))),
        ],
    ),
    Group(
        "Time",
        "`sbintime` is an int: seconds in fixed point, with 32 bits behind the point.",
        [
            "SBT_1S",
            "SBT_1M",
            "SBT_1MS",
            "SBT_1US",
            "SBT_1NS",
            "SBT_MAX",
            "mstosbt",
            "ustosbt",
            "nstosbt",
            "sbttoms",
            "sbttous",
            "sbttons",
            "timespec",
            "timeval",
            "tstosbt",
            "tvtosbt",
            "sbttots",
            "sbttotv",
        ],
    ),
    Group("Errors", "Each is also the builtin that fits.", ERRORS),
)

MODULES: Final = (
    ("callout.guest", "guest", "See [asyncio.md](asyncio.md)."),
    ("callout.freebsd13", "freebsd13", ""),
    ("callout.abc", "abc", "See [timers.md](timers.md#injected-timers)."),
    ("callout.testing", "testing", "See [testing.md](testing.md)."),
    ("callout.explore", "explore", "See [testing.md](testing.md)."),
    ("callout.conformance", "conformance", "See [conformance.md](conformance.md)."),
)

ERROR_NAME: Final = re.compile(r"\w+")
AWAITED: Final = re.compile(r"Coroutine\[Any, Any, (.*)\]")
CODE: Final = r"`\g<0>`"
CONTEXTS: Final = {"open_callouts", "draining"}
INTERNAL: Final = {"drop_all", "lead", "used"}  # methods with a docstring that are the package's own all the same
# Nobody else makes these.
GIVEN: Final = {
    "Incident",
    "CalloutSystem",
    "CalloutInfo",
    "Trace",
    "TraceEvent",
    "SystemStats",
    "CpuStats",
    "Histogram",
    "CpuHandle",
    "TimedNursery",
    "TimeoutTask",
    "Allocation",
    "Where",
    "Teardown",
    "TeardownReport",
}


def markdown(text: str) -> str:
    """Turn a docstring into Markdown: double backquotes, lists of errors, literal blocks."""
    text = text.replace("``", "`")
    text = re.sub(r"^::\n\n", "", text, flags=re.MULTILINE)
    text = text.replace("::\n", ":\n")
    body, found, raises = text.partition("Raises:\n")
    if not found:
        return body.strip()
    errors, _, rest = raises.partition("\n\n")
    lines = re.sub(r"\n\s{8,}", " ", f"\n{errors}")
    out = []
    for line in filter(None, map(str.strip, lines.splitlines())):
        names, colon, what = line.partition(":")
        out.append(f"- {ERROR_NAME.sub(CODE, names)}{colon}{what}")
    return "\n\n".join(filter(None, (body.strip(), "Raises:", "\n".join(out), rest.strip())))


def doc(thing: object) -> str:
    """Return the docstring as Markdown."""
    text = inspect.getdoc(thing)
    assert text, f"{thing!r} has no docstring"
    return markdown(text)


class _Plain(str):
    """An annotation that shows without quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def signature(name: str, function: Callable[..., Any], *, method: bool = False) -> str:
    """Return how *function* is called, in a line."""
    found = inspect.signature(function)
    parameters = [
        each if each.annotation is each.empty else each.replace(annotation=_Plain(each.annotation))
        for each in list(found.parameters.values())[method:]
        if each.name != "machine"  # the package's own
    ]
    result = found.return_annotation
    if result is not found.empty:
        result = _Plain(result)
    awaited = AWAITED.fullmatch(str(result)) if name != "must_await" else None
    if awaited:
        result = _Plain(awaited[1])
    text = f"{name}{found.replace(parameters=parameters, return_annotation=result)}"
    if name in CONTEXTS:
        return f"`async with {text.partition(' -> ')[0]}:`"
    return f"`{'await ' if awaited or inspect.iscoroutinefunction(function) else ''}{text}`"


def members(cls: type) -> Iterator[str]:
    """Yield the paragraphs of a class's own public methods and properties."""
    if dataclasses.is_dataclass(cls):
        body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, said in pairwise(body.body):
            if isinstance(field, ast.AnnAssign) and isinstance(said, ast.Expr):
                yield f"**`{ast.unparse(field)}`**: {markdown(ast.literal_eval(said.value))}"
    for name, member in chain(vars(cls).items(), vars(Making).items() if cls is callout.CalloutSystem else ()):
        if name.startswith("_") or name in INTERNAL:
            continue
        if isinstance(member, property) and member.__doc__:
            yield f"**`{name}`**: {doc(member)}"
            continue
        function = getattr(cls, name)
        if inspect.isroutine(function) and function.__doc__:
            method = not isinstance(member, staticmethod)
            yield f"**{signature(name, function, method=method)}**: {doc(function)}"


def entry(name: str, thing: object) -> str:
    """Return the section of one function or class."""
    paragraphs = [f"### {name}"]
    if inspect.isclass(thing):
        init = vars(thing).get("__init__")
        called = name not in GIVEN and not getattr(thing, "_is_protocol", False) and not issubclass(thing, Exception)
        if init is not None and called:
            paragraphs.append(signature(name, init, method=True))
        paragraphs.append(doc(thing))
        if init is not None and called and init.__doc__:
            paragraphs.append(markdown(inspect.cleandoc(init.__doc__)))
        paragraphs += members(thing)
    else:
        assert callable(thing)
        paragraphs += [signature(name, thing), doc(thing)]
    return "\n\n".join(paragraphs)


def constants(names: Sequence[str], module: ModuleType) -> str:
    """Return a table of constants."""
    rows = ["| constant | value | meaning |", "| --- | --- | --- |"]
    for name in names:
        value = getattr(module, name)
        is_bits = isinstance(value, int) and not name.startswith("SBT")
        rows.append(f"| `{name}` | {hex(value) if is_bits else value} | {MEANINGS[name]} |")
    return "\n".join(rows)


def lock_calls(names: Sequence[str]) -> str:
    """Return a table of the C names of lock operations."""
    rows = ["| C name | is | |", "| --- | --- | --- |"]
    for name in names:
        function = getattr(callout, name)
        what = function.__qualname__
        line = " ".join(doc(function).split("\n\n")[0].split())
        rows.append(f"| `{name}` | {f'`{what}`' if what != name else 'a function'} | {line} |")
    return "\n".join(rows)


def errors(names: Sequence[str]) -> str:
    """Return a table of exceptions."""
    rows = ["| error | is also | |", "| --- | --- | --- |"]
    for name in names:
        cls = getattr(callout, name)
        bases = ", ".join(f"`{base.__name__}`" for base in cls.__bases__)
        rows.append(f"| `{name}` | {bases} | {' '.join(doc(cls).split())} |")
    return "\n".join(rows)


def group(title: str, text: str, names: Sequence[str], module: ModuleType) -> str:
    """Return one section of the page."""
    parts = [f"## {title}", text.strip() if "\n" in text else textwrap.fill(text, 119)]
    if names is ERRORS:
        return "\n\n".join([*parts, errors(names)])
    calls = [name for name in names if name in LOCK_CALLS]
    values = [name for name in names if not callable(getattr(module, name))]
    parts += [entry(name, getattr(module, name)) for name in names if name not in calls and name not in values]
    if calls:
        parts += ["### The C names", lock_calls(calls)]
    if values:
        parts += ["### Constants", constants(values, module)]
    return "\n\n".join(filter(None, parts))


def render() -> str:
    """Return the page."""
    missing = set(callout.__all__) - {name for each in GROUPS for name in each.names}
    assert not missing, f"tests/unit/reference.py, GROUPS: nothing places {', '.join(sorted(missing))}"
    parts = [HEAD.strip()]
    parts += [group(each.title, each.text, each.names, callout) for each in GROUPS]
    for full, title, text in MODULES:
        module = importlib.import_module(full)
        names = [name for name in module.__all__ if name not in ALIASES]
        parts.append(group(title, f"Module `{full}`. {text}", names, module))
        parts += [f"`{name}`: {ALIASES[name]}" for name in module.__all__ if name in ALIASES]
    return "\n\n".join(parts) + "\n"


def module_map() -> str:
    """Return the table of the modules: the first sentence of each one's docstring."""
    rows = ["| module | what it is |", "| --- | --- |"]
    for room in ROOMS:
        for file in sorted((ROOT / "callout" / room).glob("*.py")):
            name = file.relative_to(ROOT / "callout").with_suffix("").as_posix().removesuffix("/__init__")
            text = " ".join((ast.get_docstring(ast.parse(file.read_text("utf-8"))) or "").split("\n\n")[0].split())
            rows.append(f"| `{name}` | {text.replace('``', '`')} |")
    return "\n".join(rows)


def phase_table() -> str:
    """Return the table of the phases: what each kind of call does in each."""
    shown = {Admission.NOTHING: "nothing", Admission.CLOSED: "`ClosedError`", Admission.FORKED: "`ForkedError`"}
    rows = [
        f"| call | {' | '.join(phase.name.lower() for phase in Phase)} |",
        f"| --- | {' | '.join('---' for _ in Phase)} |",
    ]
    rows += [
        f"| {use.value} | {' | '.join(shown.get(admits[phase], 'works') for phase in Phase)} |"
        for use, admits in ADMITS.items()
    ]
    return "\n".join(rows)


def render_design() -> str:
    """Return docs/design.md as it stands, with its two tables made anew."""
    text = DESIGN.read_text("utf-8")
    for name, made in (("phases", phase_table()), ("map", module_map())):
        text, count = re.subn(
            rf"(<!-- {name}: .*? -->\n).*?(<!-- end -->)",
            lambda found, made=made: f"{found[1]}\n{made}\n\n{found[2]}",  # type: ignore[misc]  # the default binds made
            text,
            flags=re.DOTALL,
        )
        assert count == 1, f"docs/design.md has {count} places for the table {name!r}"
    return text


if __name__ == "__main__":
    PATH.write_text(render(), encoding="utf-8")
    DESIGN.write_text(render_design(), encoding="utf-8")
