"""Reading trace files. What cannot be read is a ``TraceError`` with file, line and reason."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Final

from .._core.errors import TraceError

# op -> number of arguments
_COMMON: Final = {"lock": 1, "unlock": 1, "rlock": 1, "runlock": 1}
_FREEBSD: Final = {
    "reset": 5,
    "reset_direct": 5,
    "schedule": 3,
    "stop": 1,
    "drain": 1,
    "async_drain": 2,
    "deactivate": 1,
}
_LINUX: Final = {
    "add": 2,
    "add_on": 3,
    "mod": 2,
    "mod_pending": 2,
    "reduce": 2,
    "del": 1,
    "try_del_sync": 1,
    "del_sync": 1,
    "shutdown": 1,
    "shutdown_sync": 1,
}
OPS: Final = {"freebsd": _COMMON | _FREEBSD, "linux": _COMMON | _LINUX}
_NAMES: Final = ("id", "api", "tags", "ncpu", "locks", "callouts", "fns", "threads", "steps")


@dataclass(frozen=True)
class Step:
    """One step: who does what, and what the kernel answered."""

    actor: str
    op: str
    args: tuple[Any, ...]  # Any: JSON
    ret: Any  # Any: JSON
    events: dict[str, list[list[Any]]]  # Any: JSON
    state: dict[str, list[int]]


@dataclass(frozen=True)
class Scenario:
    """One scripted run of a timer subsystem, with what the reference did at every step."""

    id: str
    title: str
    api: str
    tags: tuple[str, ...]
    ncpu: int
    locks: dict[str, str]
    callouts: dict[str, dict[str, Any]]  # Any: JSON
    fns: dict[str, list[list[Any]]]  # Any: JSON
    threads: tuple[str, ...]
    steps: tuple[Step, ...]
    thread_cpu: dict[str, int] = field(default_factory=dict)
    alloweddeviation: int = 0

    @property
    def name(self) -> str:
        """The title if it has one, else the id."""
        return self.title or self.id


def shipped(api: str) -> list[Path]:
    """Return the trace files of *api* ("freebsd", "linux") that come with the package."""
    folder = resources.files(__package__) / "data" / api
    return sorted(Path(str(entry)) for entry in folder.iterdir() if entry.name.endswith(".jsonl"))


def load(path: Path | str) -> Iterator[Scenario]:
    """Yield the scenarios of a trace file.

    Raises:
        TraceError: it cannot be read; the message gives file, line and reason.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TraceError(f"{path}: cannot be read: {error}") from error
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield _scenario(json.loads(line))
            except json.JSONDecodeError as error:
                raise TraceError(f"{path}:{number}: not JSON (is the file truncated?): {error}") from error
            except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
                raise TraceError(f"{path}:{number}: {error}") from error


def _scenario(raw: dict[str, Any]) -> Scenario:
    if not isinstance(raw, dict):
        raise TypeError("a scenario must be a JSON object")
    missing = [name for name in _NAMES if name not in raw]
    if missing:
        raise ValueError(f"the scenario has no {', '.join(map(repr, missing))}")
    if raw["api"] not in OPS:
        raise ValueError(f"unknown api {raw['api']!r}; known: {', '.join(OPS)}")
    ops = OPS[raw["api"]]
    threads = tuple(raw["threads"])
    for program in raw["fns"].values():
        for op, *args in program:
            _check_op(ops | {"gate": 1}, op, args)
    return Scenario(
        id=raw["id"],
        title=raw.get("title", ""),
        api=raw["api"],
        tags=tuple(raw["tags"]),
        ncpu=raw["ncpu"],
        locks=dict(raw["locks"]),
        callouts=dict(raw["callouts"]),
        fns=dict(raw["fns"]),
        threads=threads,
        steps=tuple(_step(at, step, ops, threads) for at, step in enumerate(raw["steps"])),
        thread_cpu=dict(raw.get("thread_cpu", {})),
        alloweddeviation=raw.get("alloweddeviation", 0),
    )


def _step(at: int, raw: dict[str, Any], ops: dict[str, int], threads: tuple[str, ...]) -> Step:
    try:
        return _read_step(raw, ops, threads)
    except (KeyError, TypeError, ValueError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"step {at}: {reason}") from error


def _read_step(raw: dict[str, Any], ops: dict[str, int], threads: tuple[str, ...]) -> Step:
    actor, op, *args = raw["do"]
    if actor == "clock":
        _check_op({"advance": 1}, op, args)
    elif actor == "gate":
        _check_op({"open": 1}, op, args)
    elif actor in threads:
        _check_op(ops, op, args)
    else:
        raise ValueError(f"unknown actor {actor!r}; the scenario's threads are {', '.join(threads) or 'none'}")
    return Step(actor, op, tuple(args), raw["ret"], raw["events"], raw["state"])


def _check_op(ops: dict[str, int], op: str, args: list[Any]) -> None:
    if op not in ops:
        raise ValueError(f"unknown op {op!r}; known: {', '.join(sorted(ops))}")
    if len(args) != ops[op]:
        raise ValueError(f"op {op!r} takes {ops[op]} arguments, got {len(args)}")
