"""Writing a scenario down: a module in Python, to be read, changed and kept as a test."""

from __future__ import annotations

import builtins
import keyword
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePath
from typing import Final

from .._core.trace import GIANT, MUTEX, RECURSIVE, RMLOCK, RWLOCK, SPIN, TraceKind
from .._core.units import CALLOUT_RETURNUNLOCKED, CALLOUT_SHAREDLOCK, CALLOUT_TRYLOCK
from ._actors import ARM, FREE, Actors, Body, Call, freed_of
from ._lead import CALLBACK
from ._recorded import OF_SETS, PROMISES, WAITS, Recorded

FLAGS: Final = {
    CALLOUT_RETURNUNLOCKED: "CALLOUT_RETURNUNLOCKED",
    CALLOUT_SHAREDLOCK: "CALLOUT_SHAREDLOCK",
    CALLOUT_TRYLOCK: "CALLOUT_TRYLOCK",
}
INIT: Final = {RWLOCK: "callout_init_rw", RMLOCK: "callout_init_rm"}  # of any other lock: callout_init_mtx
OBJECT: Final = re.compile(r"(.*) [0-9]+, generation [0-9]+")  # as a slab names it
PACKAGE: Final = re.compile(r"(callout_|close_|mtx_|rw_|rm_|completed_).*")  # names that a scenario imports, or gives
CLASSES: Final = frozenset({"Callout", "Counter", "Mtx", "RmLock", "RwLock", "Slab", *dir(builtins)})
WIDTH: Final = 88
POINT: Final = "vm.point()  # others came between"
_INDENT: Final = "    "


class Names:
    """Names for what has none in Python, each used once."""

    def __init__(self) -> None:
        self._used = {"elsewhere", "idle", "incident", "nothing", "ran", "slab", "vm", *dir(builtins)}

    def of(self, text: str) -> str:
        """Return a name that is like *text*."""
        stem = re.sub(r"\W+", "_", text.rpartition("<locals>.")[2].lower(), flags=re.ASCII).strip("_") or "callout"
        if stem[0].isdigit() or keyword.iskeyword(stem) or PACKAGE.match(stem):
            stem = f"_{stem}"
        name, number = stem, 1
        while name in self._used or f"{CALLBACK}{name}" in self._used:
            number += 1
            name = f"{stem}_{number}"
        self._used |= {name, f"{CALLBACK}{name}"}
        return name


def source_of(actors: Actors) -> tuple[str, dict[int, str]]:
    """Return the scenario, and the name of the callback of each callout in it."""
    writer = _Writer(actors)
    return writer.text(), {serial: f"{CALLBACK}{name}" for serial, name in writer.callouts.items()}


class _Writer:
    def __init__(self, actors: Actors) -> None:
        self._actors = actors
        self._imports: set[str] = set()
        self._promises_nothing = False
        names = Names()
        for body in actors.bodies:
            names.of(body.name)
        self.callouts: dict[int, str] = {}
        for serial in actors.serials:
            self.callouts[serial] = names.of(actors.about[serial].name or actors.function_of(serial))
        self._locks: dict[int, str] = {}
        giants = {known.lock_number for known in actors.about.values() if known.lock_kind == GIANT}
        self._objects: dict[str, str] = {}
        for _, event in actors.part():
            known = actors.about[event.serial]
            if known.lock_number is not None and known.lock_number not in self._locks and known.lock_kind != GIANT:
                self._locks[known.lock_number] = names.of(known.lock or "lock")
            for number in event.held:
                if number not in self._locks and number not in giants:
                    self._locks[number] = names.of("lock")
            if event.kind is TraceKind.FREED and freed_of(event) not in self._objects:
                self._objects[freed_of(event)] = names.of(_slab_of(freed_of(event)))

    @property
    def _first(self) -> str:
        """What was freed first: one class and one slab, named after that, do for all."""
        return next(iter(self._objects), "")

    def text(self) -> str:
        """Return all of it."""
        actors = self._actors
        lines = [*self._callbacks(), *self._completions(), *self._setup(), *self._threads()]
        counts = ["ran: Counter[str] = Counter()", ""] if any("ran[" in line for line in lines) else []
        if self._promises_nothing:
            counts += ["def nothing(_: object) -> None:", f'{_INDENT}"""It was not called."""', ""]
        if any("await elsewhere()" in line for line in lines):
            counts += [
                "async def elsewhere() -> None:",
                f'{_INDENT}"""Await something that is not in the trace."""',
                f"{_INDENT}await idle.drain()",
                "",
            ]
            at = lines.index("with vm.setup():") + 1
            lines.insert(at, f"{_INDENT}idle = vm.callout(lambda: None)")
        body = [f"{_INDENT}{line}".rstrip() for line in [*counts, *lines]]
        head = [f'"""{_text(actors.title)}."""', "", "from __future__ import annotations", ""]
        if any("Counter" in line for line in counts):
            head += ["from collections import Counter", ""]
        older = "callout_async_drain" in self._imports
        self._imports.discard("callout_async_drain")
        head += [*_import("callout", self._imports)]
        head += ["from callout.freebsd13 import callout_async_drain"] if older else []
        head += [*_import("callout.testing", {"Slab", "VirtualSMP"} if self._objects else {"VirtualSMP"}), "", ""]
        if self._objects:
            head += [
                f"class {_class_of(self._first)}:",
                f'{_INDENT}"""What was freed, with these parts."""',
                "",
                f"{_INDENT}def __init__(self, /, **parts: object) -> None:",
                f"{_INDENT * 2}vars(self).update(parts)",
                "",
                "",
            ]
        head += ["def incident(vm: VirtualSMP) -> None:", f'{_INDENT}"""Do as the trace has it."""', ""]
        return "\n".join([*head, *body]) + "\n"

    def _use(self, *names: str) -> str:
        self._imports.update(names)
        return names[0]

    # -- functions -------------------------------------------------------------------------------------------------

    def _callbacks(self) -> Iterator[str]:
        """Yield the callbacks."""
        for serial, name in self.callouts.items():
            runs = self._actors.runs.get(serial, [])
            yield f"def {CALLBACK}{name}(_: object) -> None:"
            bodies = [self._calls(run) for run in runs]
            if not any(bodies):
                yield f'{_INDENT}"""It has made no calls."""'
            else:
                yield f'{_INDENT}ran["{name}"] += 1'
                for number, lines in enumerate(bodies, 1):
                    if lines:
                        yield f'{_INDENT}if ran["{name}"] == {number}:'
                        yield from _indented(lines, 2)
            about = self._actors.about[serial]
            if about.flags & CALLOUT_RETURNUNLOCKED and about.lock_number is not None:
                yield f"{_INDENT}{self._unlock(about)}"
            yield ""

    def _completions(self) -> Iterator[str]:
        for body in self._actors.completions.values():
            yield f"def {body.name}(_: object) -> None:"
            yield from _indented(self._calls(body) or ['"""It has made no calls."""'], 1)
            yield ""

    def _threads(self) -> Iterator[str]:
        for body in self._actors.bodies:
            lines = self._calls(body)
            is_async = any("await " in line for line in lines)
            yield f"{'async ' if is_async else ''}def {body.name}() -> None:"
            yield from _indented(lines, 1)
            yield ""
        for body in self._actors.bodies:
            yield f"vm.spawn({body.name}{'' if body.cpu is None else f', cpu={body.cpu}'})"
        yield "vm.settle()"

    # -- objects ---------------------------------------------------------------------------------------------------

    def _setup(self) -> Iterator[str]:
        """Yield what makes the objects, and arms what was pending."""
        actors = self._actors
        yield "with vm.setup():"
        known = {event.lock_number: event for event in actors.events if event.lock_kind is not None}
        for number, name in self._locks.items():
            lock = known.get(number)  # one of which only that it is held is known is a mutex
            kind = MUTEX if lock is None or lock.lock_kind is None else lock.lock_kind
            yield f"{_INDENT}{name} = {self._lock(kind, name if lock is None else lock.lock or name)}"
        for serial, name in self.callouts.items():
            yield f"{_INDENT}{name} = {self._use('Callout')}()"
            yield f"{_INDENT}{self._init(serial, name)}"
        kind = _class_of(self._first)
        if self._objects:
            yield f'{_INDENT}slab: Slab[{kind}] = Slab("{_slab_of(self._first)}")'
        for detail, name in self._objects.items():
            freed = [event for _, event in actors.part() if event.kind is TraceKind.FREED and freed_of(event) == detail]
            parts = list(dict.fromkeys(self.callouts[event.serial] for event in freed))
            with_lock = (event.serial for event in freed if event.detail != detail)
            numbers = (actors.about[serial].lock_number for serial in with_lock)
            parts += dict.fromkeys(self._locks[number] for number in numbers if number in self._locks)
            yield f"{_INDENT}{name} = slab.alloc("
            yield from _indented([f"{kind},", *(f"{part}={part}," for part in parts)], 2)
            yield f"{_INDENT})"
        for serial in actors.closed():
            yield f"{_INDENT}{self._use('callout_dequeue')}({self.callouts[serial]}, close=True)"
        for serial, (cpu, seconds) in actors.pending().items():
            if serial in self.callouts:
                yield f"{_INDENT}{self._arm(serial, actors.ticks(seconds), cpu)}"
        yield ""

    def _lock(self, kind: str, name: str) -> str:
        if kind in (RWLOCK, RMLOCK):
            return f"{self._use('RwLock' if kind == RWLOCK else 'RmLock')}({_quoted(name)})"
        options = [self._use("MTX_SPIN")] if kind.endswith(SPIN) else []
        options += [self._use("MTX_RECURSE")] if kind.startswith(RECURSIVE) else []
        return f"{self._use('Mtx')}({', '.join([_quoted(name), *([' | '.join(options)] if options else [])])})"

    def _init(self, serial: int, name: str) -> str:
        about = self._actors.about[serial]
        if about.lock_number is None or about.lock_kind == GIANT:
            return f"{self._use('callout_init')}({name}, {0 if about.lock_kind == GIANT else 1})"
        init = self._use(INIT.get(about.lock_kind or "", "callout_init_mtx"))
        flags = [self._use(text) for flag, text in FLAGS.items() if about.flags & flag]
        return f"{init}({', '.join([name, self._locks[about.lock_number], *([' | '.join(flags)] if flags else [])])})"

    def _unlock(self, about: Recorded) -> str:
        """Release the lock of a callout whose callback does that."""
        assert about.lock_number is not None
        kind = about.lock_kind or MUTEX
        if kind in (RWLOCK, RMLOCK):
            shared = about.flags & CALLOUT_SHAREDLOCK
            call = f"{'rw' if kind == RWLOCK else 'rm'}_{'r' if shared else 'w'}unlock"
        else:
            call = "mtx_unlock_spin" if kind.endswith(SPIN) else "mtx_unlock"
        return f"{self._use(call)}({self._locks[about.lock_number]})"

    def _arm(self, serial: int, ticks: int, cpu: int) -> str:
        name = self.callouts[serial]
        if self._actors.about[serial].direct:
            self._use("callout_reset_sbt_on", "C_DIRECT_EXEC", "SBT_1S")
            sbt = f"{ticks} * SBT_1S // {self._actors.recording.hz}"
            return f"callout_reset_sbt_on({name}, {sbt}, 0, {CALLBACK}{name}, None, {cpu}, C_DIRECT_EXEC)"
        return f"{self._use(ARM)}({name}, {ticks}, {CALLBACK}{name}, None, {cpu})"

    # -- calls -----------------------------------------------------------------------------------------------------

    def _calls(self, body: Body) -> list[str]:
        """Return what a function does."""
        return self._block(body, body.calls, 0)

    def _locks_of(self, body: Body, call: Call) -> list[int]:
        return [number for number in call.event.held if number not in body.held]

    def _block(self, body: Body, calls: Sequence[Call], depth: int) -> list[str]:
        """Return calls, of which the first *depth* locks are held already."""
        lines: list[str] = []
        at = 0
        while at < len(calls):
            if depth == 0:
                lines += self._before(body, calls, at)
            lock = next(iter(self._locks_of(body, calls[at])[depth:]), None)
            if lock is None:
                lines.append(self._line(body, calls[at]))
                at += 1
                continue
            end = at + 1
            while (
                end < len(calls)
                and self._locks_of(body, calls[end])[depth : depth + 1] == [lock]
                and not self._actors.released_between(lock, calls[end - 1], calls[end])
            ):
                end += 1
            lines.append(f"with {self._locks.get(lock, 'vm.giant')}:")
            lines += _indented(self._block(body, calls[at:end], depth + 1), 1)
            at = end
        if depth == 0 and body.end >= 0:
            last = calls[-1].at if calls else body.begin
            lines += [POINT] if self._actors.others_between(last, body.end) else []
        return lines

    def _before(self, body: Body, calls: Sequence[Call], at: int) -> list[str]:
        """Return what is to be done before call number *at* so that others can come between, as they did: a task of a
        loop awaits, if it has not waited for a callout, and a callback takes its time.
        """
        actors = self._actors
        if body.begin >= 0:
            before = calls[at - 1].at if at else body.begin
            return [POINT] if actors.others_between(before, calls[at].at) else []
        if body.cpu is None or not at or calls[at - 1].name in WAITS:
            return []
        return ["await elsewhere()"] if actors.awaits_between(calls[at - 1], calls[at]) else []

    def _line(self, body: Body, call: Call) -> str:
        event = call.event
        names = [self.callouts[serial] for serial in call.serials]
        if call.name == ARM:
            text = self._arm(event.serial, self._actors.ticks(event.due_in or 0), event.cpu)
        elif call.name == FREE:
            text = f"slab.free({self._objects[freed_of(event)]})"
        elif call.name in PROMISES:
            completion = self._actors.completions.get(call.at)
            self._promises_nothing |= completion is None
            func = "nothing" if completion is None else completion.name
            if call.name == "close_soon":
                text = f"{names[0]}.close_soon({func}, None)"
            else:
                what = f"[{', '.join(names)}]" if call.name in OF_SETS else names[0]
                more = "" if call.name == "callout_async_drain" else ", None"
                text = f"{self._use(call.name)}({what}, {func}{more})"
        elif call.name in WAITS:
            is_async = body.cpu is not None
            text = f"{self._use(call.name if is_async else f'{call.name}_sync')}({names[0]})"
            text = f"await {text}" if is_async else text
        else:
            text = f"{self._use(call.name)}({names[0]})"
        where = event.where
        if where is None:
            return text
        place, _, function = where.rpartition(" in ")
        return f"{text}  # {_text(PurePath(place).name)} in {_text(function)}"


def test_of(source: str, call: str, note: str) -> str:
    """Return a module with the scenario *source* and a test of it: the *call*, and what it is known to end in."""
    head, _, rest = source.partition("from callout import ")
    imports, _, body = rest.partition("from callout.testing")
    return (
        f"{head}from callout import {imports}from callout.explore import explore\nfrom callout.testing{body}\n\n"
        f'def test_incident() -> None:\n{_INDENT}"""{_text(note)}"""\n{_INDENT}{call}\n'
    )


def _import(module: str, names: Iterable[str]) -> list[str]:
    """Return the lines that import *names*."""
    line = f"from {module} import {', '.join(sorted(names))}"
    if len(line) <= WIDTH:
        return [line]
    return [f"from {module} import (", *(f"{_INDENT}{name}," for name in sorted(names)), ")"]


def _indented(lines: Sequence[str], depth: int) -> list[str]:
    return [f"{_INDENT * depth}{line}" for line in lines]


def _slab_of(detail: str) -> str:
    match = OBJECT.match(detail)
    return _text(match[1] if match else "object")


def _class_of(detail: str) -> str:
    words = re.findall(r"[a-z]+", _slab_of(detail).lower())
    name = "".join(word.capitalize() for word in words)
    return name if name and not keyword.iskeyword(name) and name not in CLASSES else f"{name}Object"


def _text(text: str) -> str:
    """Return a text that can stand in a string."""
    return re.sub(r"[^ -~]|[\"\\]", "?", text)


def _quoted(text: str) -> str:
    return f'"{_text(text)}"'
