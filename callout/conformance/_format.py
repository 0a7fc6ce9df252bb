"""Reading trace files. What cannot be read is a ``TraceError`` with file, line and reason; ``_schema`` says what a
line may say.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Final, NoReturn

from .._core.errors import TraceError
from .._files import open_regular
from ._schema import MAX_FILE_BYTES, MAX_LINE_BYTES, check, short


@dataclass(frozen=True)
class Step:
    """One step: what an actor does, and what came of it in the kernel."""

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
    """Yield the scenarios of a trace file, each as soon as its line has been read and checked.

    Takes time and memory in proportion to the file, which may have 8 MiB, a line 256 KiB. Never blocks: what is not a
    regular file is refused.

    Raises:
        TraceError: it cannot be read, or a line is no scenario; the message gives file, line and reason.
    """
    ids: dict[str, int] = {}
    for number, scenario in numbered(path):
        if scenario.id in ids:
            raise TraceError(f"{path}:{number}: the id {scenario.id!r} is also in line {ids[scenario.id]}")
        ids[scenario.id] = number
        yield scenario


def numbered(path: Path | str) -> Iterator[tuple[int, Scenario]]:
    """Yield each scenario of a file with the number of its line."""
    number = 0
    try:
        with open_regular(path) as file:
            _check_size(os.fstat(file.fileno()).st_size)
            left = MAX_FILE_BYTES
            while line := file.readline(MAX_LINE_BYTES + 1):  # only newlines end a line
                number += 1
                left -= len(line)
                if len(line) > MAX_LINE_BYTES or left < 0:  # left < 0: it grew while it was read
                    raise _too_long(path, number, left)
                if not line.isspace():
                    yield number, _read(path, number, line)
    except TraceError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name, or it is too large
        raise TraceError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _too_long(path: Path | str, number: int, left: int) -> TraceError:
    what, most = ("the line", MAX_LINE_BYTES) if left >= 0 else ("the file up to here", MAX_FILE_BYTES)
    return TraceError(f"{path}:{number}: {what} has more than {most} bytes")


def _read(path: Path | str, number: int, line: bytes) -> Scenario:
    try:
        return _scenario(json.loads(line.decode("utf-8"), **_STRICT))
    except json.JSONDecodeError as error:
        raise TraceError(f"{path}:{number}: not JSON (is the file truncated?): {error}") from error
    except RecursionError as error:
        raise TraceError(f"{path}:{number}: nested too deeply (recursion)") from error
    except ValueError as error:  # the schema's, the decoder's
        raise TraceError(f"{path}:{number}: {error}") from error


def _check_size(size: int) -> None:
    if size > MAX_FILE_BYTES:
        raise ValueError(f"it has {size} bytes, at most {MAX_FILE_BYTES} are allowed: split it")


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        twice, seen = "", set[str]()
        for name, _ in pairs:
            twice = name if name in seen else twice
            seen.add(name)
        raise ValueError(f"duplicate key {short(twice)}")
    return made


def _no_fraction(text: str) -> NoReturn:
    raise ValueError(f"{short(text)}: only integers are allowed as numbers")


def _parse_int(text: str) -> int:
    if len(text) > 20:
        raise ValueError(f"{text[:20]}…: a number of {len(text)} digits")
    return int(text)


_STRICT: Final[dict[str, Any]] = {  # Any: keyword arguments of different types
    "object_pairs_hook": _pairs,
    "parse_float": _no_fraction,
    "parse_constant": _no_fraction,
    "parse_int": _parse_int,
}


def _scenario(raw: Any) -> Scenario:  # noqa: ANN401 - JSON
    check(raw)
    return Scenario(
        id=raw["id"],
        title=raw.get("title", ""),
        api=raw["api"],
        tags=tuple(raw["tags"]),
        ncpu=raw["ncpu"],
        locks=raw["locks"],
        callouts=raw["callouts"],
        fns=raw["fns"],
        threads=tuple(raw["threads"]),
        steps=tuple(_step(step) for step in raw["steps"]),
        thread_cpu=raw.get("thread_cpu", {}),
        alloweddeviation=raw.get("alloweddeviation", 0),
    )


def _step(raw: dict[str, Any]) -> Step:
    actor, op, *args = raw["do"]
    return Step(actor, op, tuple(args), raw["ret"], raw["events"], raw["state"])
