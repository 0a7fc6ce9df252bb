"""Breaks trace files in every way that it knows, repeatably: ``python -m tests.conformance_tool.mutate 3000`` replays
so many and prints what became of them.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from callout.cli import main
from callout.conformance import shipped

Json = Any  # Any: whatever JSON can say

# What stands where something else should.
ODD: Final[tuple[str, ...]] = (
    *("null", "true", "false", "0", "1", "-1", "2", "7", "1.5", "1e400", "-0.0", "NaN", "Infinity", "-Infinity"),
    *("1000000", "10000000000", "-99999999999999999999", "9" * 30, "9" * 6000, "[]", "{}", "[[]]", "[null]", "[{}]"),
    *('""', '"banana"', '"c0"', '"c9"', '"t0"', '"f0"', '"L0"', '"Giant"', '"cpu0"', '"clock"', '"gate"', '"blocked"'),
    *('"\\ud800"', '"\\u0000"', '"\\u001b[31m"', '"' + "x" * 5000 + '"', '{"error": "e"}', '{"error": 1}', '{"a": 1}'),
    *('["t0", "stop", "c0"]', '["clock", "advance", 1000000]', '["clock", "advance", 2000]', '["gate", "open", "g9"]'),
    *(
        '["call", "c0", "f0", 1]',
        '["return", "c0"]',
        '["waitlock", "L0"]',
        '["unblocked", 1]',
        '["op", "stop", "c0", 0]',
    ),
    "[" * 3000 + "]" * 3000,
    '{"a":' * 3000 + "1" + "}" * 3000,
    "[" + ",".join(["1"] * 5000) + "]",
)


class Mutant(NamedTuple):
    """A broken file, and how it was broken."""

    how: str
    data: bytes


def _places(value: Json, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of everything in *value*, itself not included."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from _places(inner, (*path, key))


def _parent(value: Json, path: tuple[Any, ...]) -> Json:
    for key in path[:-1]:
        value = value[key]
    return value


class _Raw(str):
    """JSON text that takes the place of a value."""

    __slots__ = ()


def _dump(value: Json, twice: tuple[Any, ...] | None = None, path: tuple[Any, ...] = ()) -> str:
    """Write JSON, with raw text in it, and with the key at path *twice* written two times."""
    if isinstance(value, _Raw):
        return str(value)
    if isinstance(value, dict):
        pairs = []
        for key, inner in value.items():
            pair = f"{json.dumps(key)}: {_dump(inner, twice, (*path, key))}"
            pairs += [pair, pair] if (*path, key) == twice else [pair]
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_dump(inner, twice, (*path, at)) for at, inner in enumerate(value)) + "]"
    return json.dumps(value)


def _replace(rng: random.Random, scenario: Json) -> str:
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        path = rng.choice([*_places(scenario)])
        _parent(scenario, path)[path[-1]] = _Raw(rng.choice(ODD))
    return _dump(scenario)


def _remove(rng: random.Random, scenario: Json) -> str:
    path = rng.choice([*_places(scenario)])
    del _parent(scenario, path)[path[-1]]
    return _dump(scenario)


def _swap(rng: random.Random, scenario: Json) -> str:
    places = [*_places(scenario)]
    for _ in range(rng.choice((1, 2))):
        one, other = rng.choice(places), rng.choice(places)
        with contextlib.suppress(KeyError, IndexError, TypeError):  # the second is inside the first, by now
            first, second = _parent(scenario, one), _parent(scenario, other)
            a, b = json.loads(json.dumps(first[one[-1]])), json.loads(json.dumps(second[other[-1]]))
            first[one[-1]], second[other[-1]] = b, a
    return _dump(scenario)


def _add_key(rng: random.Random, scenario: Json) -> str:
    tables = [place for place in ((), *_places(scenario)) if isinstance(_at(scenario, place), dict)]
    _at(scenario, rng.choice(tables))[rng.choice(("x", "id", "fn", "lock", "cpu9", "init", "flags", "c0"))] = _Raw(
        rng.choice(ODD)
    )
    return _dump(scenario)


def _at(value: Json, path: tuple[Any, ...]) -> Json:
    return _parent(value, (*path, None))


def _key_twice(rng: random.Random, scenario: Json) -> str:
    return _dump(scenario, rng.choice([path for path in _places(scenario) if isinstance(path[-1], str)]))


def _repeat(rng: random.Random, scenario: Json) -> str:
    lists = [path for path in _places(scenario) if isinstance(_at(scenario, path), list) and _at(scenario, path)]
    chosen = _at(scenario, rng.choice(lists))
    chosen.insert(rng.randrange(len(chosen) + 1), rng.choice(chosen))
    return _dump(scenario)


def _number(rng: random.Random, scenario: Json) -> str:
    numbers = [path for path in _places(scenario) if type(_at(scenario, path)) is int]
    path = rng.choice(numbers)
    _parent(scenario, path)[path[-1]] += rng.choice((-1, 1, 2, 100, -(2**31), 2**31, 2**63, 10**6))
    return _dump(scenario)


BY_VALUE: Final[tuple[Callable[[random.Random, Json], str], ...]] = (
    *(_replace, _replace, _replace, _remove, _swap, _add_key, _key_twice, _repeat, _number),
)


def _by_bytes(rng: random.Random, data: bytes) -> Mutant:
    """Break a file without looking at what it says."""
    at = rng.randrange(len(data))
    span = rng.randrange(1, 40)
    how, changed = rng.choice(
        (
            ("cut", data[:at]),
            ("byte", data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]),
            ("hole", data[:at] + data[at + span :]),
            ("twice", data[: at + span] + data[at:]),
            ("NUL", data[:at] + b"\0" * span + data[at:]),
            ("newline", data[:at] + b"\n" + data[at:]),
            ("file twice", data + data),
            ("BOM", b"\xef\xbb\xbf" + data),
            ("UTF-16", data.decode().encode("utf-16")),
        )
    )
    return Mutant(how, changed)


def mutants(count: int, seed: int = 1) -> Iterator[Mutant]:
    """Yield so many mutants of the shipped files, the same for the same seed."""
    rng = random.Random(seed)
    lines = {
        api: [line for path in shipped(api) for line in path.read_bytes().splitlines()] for api in ("freebsd", "linux")
    }
    for _ in range(count):
        chosen = rng.sample(lines[rng.choice(("freebsd", "freebsd", "linux"))], rng.choice((1, 1, 2, 3)))
        if rng.random() < 0.3:
            yield _by_bytes(rng, b"".join(line + b"\n" for line in chosen))
            continue
        mutate = rng.choice(BY_VALUE)
        at = rng.randrange(len(chosen))
        chosen[at] = mutate(rng, json.loads(chosen[at])).encode()
        yield Mutant(mutate.__name__.strip("_"), b"".join(line + b"\n" for line in chosen))


class Outcome(NamedTuple):
    """What the command made of a file."""

    status: int
    seconds: float
    out: str
    err: str

    def blame(self) -> list[str]:
        """Return the failures that are no mere mismatch: the implementation broke down, over what it was made to do."""
        if self.status != 1:
            return []
        failures = [scenario["failure"] for scenario in json.loads(self.out)["scenarios"] if scenario["failure"]]
        hung = [line for failure in failures for line in failure["lines"] if "did not return within" in line]
        return [failure["kind"] for failure in failures if "what" not in failure] + hung


def api_of(data: bytes) -> str:
    """Return whose recording a file is, as far as one can tell."""
    return "linux" if b'"linux"' in data else "freebsd"


def judge(path: Path, data: bytes, platform: str) -> Outcome:
    """Write *data* to *path*, and have the command replay it."""
    path.write_bytes(data)
    begun = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        status = main(["conformance", "--impl", api_of(data), "--platform", platform, "--json", str(path)])
    return Outcome(status, time.perf_counter() - begun, out.getvalue(), err.getvalue())


def _run(count: int, seed: int, platform: str) -> None:
    statuses: Counter[tuple[str, int]] = Counter()
    longest = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for number, mutant in enumerate(mutants(count, seed)):
            outcome = judge(Path(folder, "trace.jsonl"), mutant.data, platform)
            statuses[mutant.how, outcome.status] += 1
            longest = max(longest, outcome.seconds)
            if outcome.status not in (0, 1, 2) or outcome.blame():
                sys.stdout.write(f"{number} {mutant.how}: {outcome.status} {outcome.blame()} {outcome.err}\n")
    total: Counter[int] = Counter()
    for (how, status), times in sorted(statuses.items()):
        sys.stdout.write(f"{how:12} exit {status}: {times}\n")
        total[status] += times
    sys.stdout.write(f"{count} files on {platform}: {dict(total)}; the longest took {longest:.2f} s\n")


if __name__ == "__main__":
    _run(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1, *sys.argv[3:] or ["virtual"])
