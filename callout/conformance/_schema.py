"""What a trace may say: the schema of ``FORMAT.md``, written once, as data.

``OPS``, ``EVENTS``, ``CALLOUTS``, ``KEYS`` and the limits are the tables; ``check()`` holds one line of a file against
them. It refuses everything that would make a replay fail for another reason than that the implementation differs:
names that the scenario does not have, results that an operation cannot have, a callback whose events are not those of
its program, a thread that begins an operation while it is blocked. What passes can be replayed without another look.

This is code of our own, not JSON Schema with a library for it: half of the rules relate parts of the line to each
other, which JSON Schema cannot say, and the command has to work from a bare install.

Ground rules: nothing is hashed, compared or unpacked before its type is known; a message never quotes more than a few
words of the file; the cost is linear in the line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, NamedTuple

# What keeps a file from taking for ever. What is shipped uses half of each at most, mostly far less.
MAX_FILE_BYTES: Final = 8 * 1024 * 1024
MAX_LINE_BYTES: Final = 256 * 1024
MAX_CPUS: Final = 4
MAX_NAMES: Final = 16  # locks, callouts, functions, threads: of each
MAX_TAGS: Final = 64
MAX_PROGRAM: Final = 16  # operations of one function
MAX_STEPS: Final = 1_000
MAX_TICKS: Final = 2_000  # that the clock of one scenario moves
MAX_TEXT: Final = 1_000  # characters of a title or of an error's text
INT_BITS: Final = 31  # an integer is -2**31 to 2**31 - 1

NAME: Final = re.compile(r"[A-Za-z0-9_.:+/-]{1,100}", re.ASCII)
NAME_RULE: Final = "1 to 100 letters, digits and _ . : + / -"

THREAD: Final = "thread"
FN: Final = "fn"
BOTH: Final = "thread or fn"
# What a call can return, besides an error and "blocked".
VOID: Final = ()  # null
DONE: Final = (0, 1)  # whether something was scheduled
FOUND: Final = (-1, 0, 1)  # callout(9), RETURN VALUES; try_to_del_timer_sync()


class SchemaError(ValueError):
    """A line that is no scenario; the text says what is wrong, and where in the line."""


class Op(NamedTuple):
    """An operation: what may do it, the kinds of its arguments, what it can return, whether it may block."""

    by: str
    args: tuple[str, ...]
    results: tuple[int, ...]
    blocks: bool = False


_LOCKS: Final = {
    "lock": Op(THREAD, ("lock",), VOID, blocks=True),
    "unlock": Op(BOTH, ("lock",), VOID),
    "rlock": Op(THREAD, ("rw lock",), VOID, blocks=True),
    "runlock": Op(BOTH, ("rw lock",), VOID),
    "gate": Op(FN, ("name",), VOID),
}
OPS: Final[Mapping[str, Mapping[str, Op]]] = {
    "freebsd": _LOCKS
    | {
        "reset": Op(BOTH, ("callout", "integer", "fn", "integer", "cpu or null"), DONE),
        "reset_direct": Op(BOTH, ("callout", "integer", "fn", "integer", "cpu or null"), DONE),
        "schedule": Op(BOTH, ("callout", "integer", "cpu or null"), DONE),
        "stop": Op(BOTH, ("callout",), FOUND),
        "drain": Op(THREAD, ("callout",), FOUND, blocks=True),
        "async_drain": Op(BOTH, ("callout", "name"), FOUND),
        "deactivate": Op(BOTH, ("callout",), VOID),
    },
    "linux": _LOCKS
    | {
        "add": Op(BOTH, ("callout", "delta"), VOID),
        "add_on": Op(BOTH, ("callout", "delta", "cpu"), VOID),
        "mod": Op(BOTH, ("callout", "delta"), DONE),
        "mod_pending": Op(BOTH, ("callout", "delta"), DONE),
        "reduce": Op(BOTH, ("callout", "delta"), DONE),
        "del": Op(BOTH, ("callout",), DONE),
        "try_del_sync": Op(BOTH, ("callout",), FOUND),
        "del_sync": Op(THREAD, ("callout",), DONE, blocks=True),
        "shutdown": Op(BOTH, ("callout",), DONE),
        "shutdown_sync": Op(THREAD, ("callout",), DONE, blocks=True),
    },
}
DEVICES: Final = {
    "clock": {"advance": Op("clock", ("ticks",), VOID)},
    "gate": {"open": Op("gate", ("name",), VOID)},
}
ARMING: Final = frozenset({"reset", "reset_direct", "schedule", "add", "add_on", "mod", "mod_pending", "reduce"})

# What an actor's event holds after its name. "ret" and "error" are for implementations, not for files.
EVENTS: Final[Mapping[str, tuple[str, ...]]] = {
    "call": ("callout", "fn", "arg"),
    "op": ("op", "name", "result"),
    "gate": ("name",),
    "return": ("callout",),
    "drained": ("callout",),
    "waitlock": ("lock",),
    "unblocked": ("result",),
}

LOCK_KINDS: Final = ("mtx", "spin", "rw")
# How a callout is initialised: its keys besides "init", and the flags that it may have.
CALLOUTS: Final[Mapping[str, Mapping[str, tuple[frozenset[str], tuple[str, ...]]]]] = {
    "freebsd": {
        "mpsafe": (frozenset(), ()),
        "giant": (frozenset(), ()),
        "lock": (frozenset({"lock", "flags"}), ("RETURNUNLOCKED", "SHAREDLOCK", "TRYLOCK")),
    },
    "linux": {"timer": (frozenset({"flags", "fn"}), ("PINNED", "IRQSAFE", "DEFERRABLE"))},
}

# The keys of a scenario, and of a step; True: it must be there.
KEYS: Final = {
    "id": True,
    "api": True,
    "tags": True,
    "ncpu": True,
    "locks": True,
    "callouts": True,
    "fns": True,
    "threads": True,
    "steps": True,
    "title": False,
    "thread_cpu": False,
    "alloweddeviation": False,
}
STEP_KEYS: Final = {"do": True, "ret": True, "events": True, "state": True}
GIANT: Final = "Giant"
_CPU: Final = re.compile(r"cpu[0-9]{1,3}", re.ASCII)


def check(raw: object) -> None:
    """Hold a line of a trace file, as JSON gave it, against the schema.

    Raises:
        SchemaError: what is wrong, and where in the line.
    """
    scenario = _object(raw, "a scenario")
    _keys(scenario, KEYS, "the scenario")
    _Scenario(scenario).check()


def short(value: object, limit: int = 60) -> str:
    """Return a value as a message may show it: as JSON or Python would write it, cut, without control characters."""
    # Only its outside is looked at: the inside may be megabytes.
    if isinstance(value, str):
        text = ascii(value[: limit + 1])
    elif isinstance(value, int) and value.bit_length() > 4 * limit:
        return "a huge number"
    elif value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    elif isinstance(value, int | float):
        text = repr(value)
    else:
        return "a list" if isinstance(value, list) else "an object"
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def listed(names: Collection[str], limit: int = 12) -> str:
    """Return names for a message, not too many of them."""
    shown = ", ".join(sorted(names)[:limit]) or "none"
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def _object(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise SchemaError(f"{what} must be a JSON object, not {short(value)}")
    return value


def _list(value: object, what: str, longest: int | None = None) -> list[Any]:
    if not isinstance(value, list):
        raise SchemaError(f"{what} must be a list, not {short(value)}")
    if longest is not None and len(value) > longest:
        raise SchemaError(f"{what}: {len(value)} of them, at most {longest} are allowed")
    return value


def _integer(value: object, what: str, least: int, most: int) -> int:
    if type(value) is not int:  # true is no integer
        raise SchemaError(f"{what} must be an integer, not {short(value)}")
    if not least <= value <= most:
        raise SchemaError(f"{what} must be {least} to {most}, not {short(value)}")
    return value


def _name(value: object, what: str) -> str:
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise SchemaError(f"{what} must be a name ({NAME_RULE}), not {short(value)}")
    return value


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise SchemaError(f"{what} must be a text, not {short(value)}")
    if len(value) > MAX_TEXT:
        raise SchemaError(f"{what} has {len(value)} characters, at most {MAX_TEXT} are allowed")
    if any("\ud800" <= each <= "\udfff" for each in value):
        raise SchemaError(f"{what} has half of a surrogate pair in it: {short(value)}")
    return value


def _names(value: object, what: str, longest: int) -> list[str]:
    names = [_name(each, f"{what}[{at}]") for at, each in enumerate(_list(value, what, longest))]
    if len(set(names)) != len(names):
        raise SchemaError(f"{what} names {short(max(names, key=names.count))} twice")
    return names


def _member(value: object, names: Collection[str], what: str, theirs: str = "the scenario's are") -> str:
    if not isinstance(value, str) or value not in names:
        raise SchemaError(f"unknown {what} {short(value)}; {theirs} {listed(names)}")
    return value


def _keys(value: dict[str, Any], known: Mapping[str, bool], what: str) -> None:
    missing = [name for name, needed in known.items() if needed and name not in value]
    if missing:
        raise SchemaError(f"{what} has no {', '.join(map(repr, missing))}")
    for name in value:
        _member(name, known, f"key of {what}:", "known:")


class _Scenario:
    """One scenario, while it is checked."""

    def __init__(self, raw: dict[str, Any]) -> None:
        self.raw = raw
        self.ops: Mapping[str, Op]
        self.cpus: list[str]
        self.locks: dict[str, str]
        self.callouts: dict[str, Any]
        self.fns: dict[str, Any]
        self.threads: list[str]
        self.ticks = 0
        self.absent_cpu = False
        self.blocked: dict[str, tuple[Op, str, list[Any]]] = {}  # thread -> what it is blocked in, with its arguments
        self.held: dict[str, list[tuple[str, bool]]] = {}  # thread -> the locks that it holds, and whether shared
        self.calls: dict[str, _Call] = {}  # CPU -> the callback that it is in

    def check(self) -> None:
        raw = self.raw
        _name(raw["id"], "id")
        _text(raw.get("title", ""), "title")
        self.ops = OPS[_member(raw["api"], OPS, "api", "known:")]
        _names(raw["tags"], "tags", MAX_TAGS)
        self.cpus = [f"cpu{number}" for number in range(_integer(raw["ncpu"], "ncpu", 1, MAX_CPUS))]
        _integer(raw.get("alloweddeviation", 0), "alloweddeviation", 0, 100)
        self._names_of_threads()
        self._names_of_locks()
        self.fns = self._table("fns")
        self._check_callouts()
        for name, program in self.fns.items():
            self._check_program(program, f"fns: {name}")
        for number, step in enumerate(_list(raw["steps"], "steps", MAX_STEPS)):
            try:
                self._check_step(step)
            except SchemaError as error:
                raise SchemaError(f"step {number}: {error}") from None

    def _table(self, key: str) -> dict[str, Any]:
        table = _object(self.raw[key], key)
        if len(table) > MAX_NAMES:
            raise SchemaError(f"{key}: {len(table)} of them, at most {MAX_NAMES} are allowed")
        for name in table:
            _name(name, f"{key}: a key")
        return table

    def _names_of_threads(self) -> None:
        self.threads = _names(self.raw["threads"], "threads", MAX_NAMES)
        for name in self.threads:
            if name in DEVICES or _CPU.fullmatch(name):
                raise SchemaError(f"threads: {name!r} is the name of another actor")
        for name, cpu in _object(self.raw.get("thread_cpu", {}), "thread_cpu").items():
            _member(name, self.threads, "thread", "thread_cpu: the scenario's are")
            _integer(cpu, f"thread_cpu: {name}", 0, len(self.cpus) - 1)

    def _names_of_locks(self) -> None:
        self.locks = self._table("locks")
        if GIANT in self.locks:
            raise SchemaError("locks: Giant always exists, and is not listed")
        for name, kind in self.locks.items():
            _member(kind, LOCK_KINDS, f"kind of lock for {name}:", "known:")

    def _check_callouts(self) -> None:
        self.callouts = self._table("callouts")
        known = CALLOUTS[self.raw["api"]]
        for name, how in self.callouts.items():
            where = f"callouts: {name}"
            if "init" not in _object(how, where):
                raise SchemaError(f"{where} has no 'init'")
            keys, flags = known[_member(how["init"], known, f"init of {name}:", "known:")]
            _keys(how, dict.fromkeys((*keys, "init"), True), where)
            for flag in _names(how.get("flags", []), f"{where}: flags", len(flags)):
                _member(flag, flags, f"flag of {name}:", "known:")
            if "lock" in keys:
                self._lock(how["lock"])
            if "fn" in keys:
                _member(how["fn"], self.fns, "fn")

    def _check_program(self, program: object, where: str) -> None:
        for at, each in enumerate(_list(program, where, MAX_PROGRAM)):
            try:
                op, *args = _list(each, "an op") or [None]
                self._check_op(self.ops, FN, op, args)
            except SchemaError as error:
                raise SchemaError(f"{where}: op {at}: {error}") from None

    # -- steps ---------------------------------------------------------------------------------------------------

    def _check_step(self, raw: object) -> None:
        step = _object(raw, "a step")
        _keys(step, STEP_KEYS, "it")
        do = _list(step["do"], "do")
        if len(do) < 2:
            raise SchemaError(f"do needs an actor and an op, and has {len(do)} elements")
        actor, op, *args = do
        if not isinstance(actor, str) or (actor not in DEVICES and actor not in self.threads):
            raise SchemaError(f"unknown actor {short(actor)}; the scenario's threads are {listed(self.threads)}")
        begun = self._check_op(DEVICES.get(actor, self.ops), THREAD, op, args)
        if actor in self.blocked:
            raise SchemaError(f"{actor} begins an op, but it is still blocked in another")
        self._check_result(step["ret"], begun, "ret", may_block=True)
        if self.absent_cpu and not isinstance(step["ret"], dict):
            raise SchemaError(f"there is no CPU {args[-1]}, so ret must be an error")
        if step["ret"] != "blocked":
            self._hold(actor, op, args, step["ret"])
        for name, events in _object(step["events"], "events").items():
            self._check_actor(name, events)
        if step["ret"] == "blocked":
            self.blocked[actor] = begun, op, args
        size = 2 if self.raw["api"] == "freebsd" else 1
        for name, state in _object(step["state"], "state").items():
            _member(name, self.callouts, "callout", "state: the scenario's are")
            if len(_list(state, f"state: {name}")) != size:
                raise SchemaError(f"state: {name} must have {size} elements, not {len(state)}")
            for bit in state:
                _integer(bit, f"state: {name}: each", 0, 1)

    def _check_op(self, ops: Mapping[str, Op], by: str, name: object, args: list[Any]) -> Op:
        known = {each for each, op in ops.items() if op.by not in (THREAD, FN) or op.by == by}
        op = ops[_member(name, known, "op", "known:" if by == THREAD else "in a callback:")]
        if len(args) != len(op.args):
            raise SchemaError(f"op {name!r} takes {len(op.args)} arguments, got {len(args)}")
        self.absent_cpu = False
        for kind, arg in zip(op.args, args, strict=True):
            _KINDS[kind](self, arg)
        if self.absent_cpu and by == FN:
            raise SchemaError(f"the CPU must be 0 to {len(self.cpus) - 1}, not {args[-1]}")
        return op

    def _check_result(self, value: object, op: Op, what: str, *, may_block: bool = False) -> None:
        if isinstance(value, dict):
            _keys(value, {"error": True}, what)
            _text(value["error"], f"{what}: error")
        elif value == "blocked" and may_block:
            if not op.blocks:
                raise SchemaError(f"{what}: this op never blocks")
        elif op.results:
            if _integer(value, what, *_RANGE) not in op.results:
                raise SchemaError(f"{what} must be {' or '.join(map(str, op.results))}, not {short(value)}")
        elif value is not None:
            raise SchemaError(f"{what} must be null, as this op returns nothing, not {short(value)}")

    def _hold(self, thread: str, op: str, args: list[Any], result: object) -> None:
        """Note what *thread* has acquired or released; what a callback holds meanwhile is not looked at."""
        if result is not None or op not in _LOCKS:
            return
        lock, shared = args[0], op in ("rlock", "runlock")
        mine = self.held.setdefault(thread, [])
        if op in ("unlock", "runlock"):
            if (lock, shared) not in mine:
                raise SchemaError(f"{thread} does not hold {lock}{' shared' * shared}, so the result must be an error")
            mine.remove((lock, shared))
            return
        for other, held in self.held.items():
            # Giant is released by a drain while that waits.
            if other != thread and lock != GIANT and ((lock, False) in held or (not shared and (lock, True) in held)):
                raise SchemaError(f"{thread} cannot have acquired {lock}, which {other} holds")
        mine.append((lock, shared))

    # -- events --------------------------------------------------------------------------------------------------

    def _check_actor(self, actor: str, events: object) -> None:
        _member(actor, (*self.cpus, *self.threads), "actor", "events: the scenario's are")
        if not _list(events, f"events: {actor}"):
            raise SchemaError(f"events: {actor} has an empty list: leave it out")
        for at, event in enumerate(_list(events, f"events: {actor}")):
            try:
                self._check_event(actor, event)
            except SchemaError as error:
                raise SchemaError(f"events: {actor}[{at}]: {error}") from None

    def _check_event(self, actor: str, event: object) -> None:
        name, *args = _list(event, "an event") or [None]
        kinds = EVENTS[_member(name, EVENTS, "event", "known:")]
        if len(args) != len(kinds):
            raise SchemaError(f"event {name!r} has {len(kinds)} elements after its name, got {len(args)}")
        for kind, arg in zip(kinds, args, strict=True):
            _KINDS[kind](self, arg)
        if actor in self.threads:
            self._thread_event(actor, name, args)
        else:
            self._cpu_event(actor, name, args)

    def _thread_event(self, actor: str, name: str, args: list[Any]) -> None:
        if name != "unblocked":
            raise SchemaError(f"a thread has no event {name!r}: a CPU has")
        if actor not in self.blocked:
            raise SchemaError(f"{actor} was not blocked before this step")
        op, name, its_args = self.blocked.pop(actor)
        self._check_result(args[0], op, "the result")
        self._hold(actor, name, its_args, args[0])

    def _cpu_event(self, cpu: str, name: str, args: list[Any]) -> None:
        call = self.calls.get(cpu)
        if name == "unblocked":
            raise SchemaError("a CPU has no event 'unblocked': a thread has")
        if name == "call":
            if call is not None:
                raise SchemaError(f"{cpu} is still in the callback of {call.callout}")
            callout, fn, _ = args
            if self.raw["api"] == "linux" and fn != self.callouts[callout]["fn"]:
                raise SchemaError(f"{callout} was set up with {self.callouts[callout]['fn']}, not with {fn}")
            how = self.callouts[callout]
            self.calls[cpu] = _Call(
                callout, fn, list(self.fns[fn]), GIANT if how["init"] == "giant" else how.get("lock")
            )
        elif name in ("op", "gate", "return"):
            if call is None:
                raise SchemaError(f"{name!r} belongs into a callback, and {cpu} is in none")
            done = call.advance(name, args)
            if name == "op":
                self._check_result(args[2], self.ops[done], "the result")
                call.release(cpu, done, args)
            elif name == "return":
                del self.calls[cpu]
        elif call is not None:
            raise SchemaError(f"{name!r} cannot be in the middle of the callback of {call.callout}")

    def _lock(self, value: object) -> str:
        return _member(value, (GIANT, *self.locks), "lock")

    def _rw_lock(self, value: object) -> None:
        if self.locks.get(self._lock(value)) != "rw":
            raise SchemaError(f"lock {value!r} is not of kind 'rw'")

    def _cpu(self, value: object) -> None:
        # A CPU that the machine does not have is a misuse that recordings show; the kernels refuse it.
        self.absent_cpu = not 0 <= _integer(value, "the CPU", *_RANGE) < len(self.cpus)

    def _advance(self, value: object) -> None:
        self.ticks += _integer(value, "the number of ticks", 1, MAX_TICKS)
        if self.ticks > MAX_TICKS:
            raise SchemaError(f"the scenario's clock moves by more than {MAX_TICKS} ticks")

    def _arg(self, value: object) -> None:
        if self.raw["api"] == "freebsd":
            _integer(value, "the argument", *_RANGE)
        elif value is not None:
            raise SchemaError(f"the argument of a timer's function must be null, not {short(value)}")


class _Call:
    """A callback in progress: what of its program is to come."""

    def __init__(self, callout: str, fn: str, program: list[list[Any]], lock: str | None) -> None:
        self.callout = callout
        self.fn = fn
        self.lock = lock  # the callout's, while it is held
        self.rest = program[::-1]

    def advance(self, event: str, args: list[Any]) -> str:
        """Take the next op from the program, which *event* must fit. Gates that were open left no event."""
        wanted = ["gate", args[0]] if event == "gate" else args[:2] if event == "op" else None
        while self.rest and self.rest[-1][0] == "gate" and self.rest[-1] != wanted:
            self.rest.pop()
        if event == "return" and args[0] != self.callout:
            raise SchemaError(f"the callback that returns is that of {self.callout}, not of {args[0]}")
        following = self.rest.pop() if self.rest else None
        if (following and following[:2]) != wanted:
            what = " ".join(map(str, following)) if following else "the return"
            raise SchemaError(f"the next thing in the program of {self.fn} is {what}")
        return str(following[0]) if following else "return"

    def release(self, cpu: str, op: str, args: list[Any]) -> None:
        """Note that the callback has released a lock, of which it can have its callout's only."""
        if op in ("unlock", "runlock") and args[2] is None:
            if args[1] != self.lock:
                raise SchemaError(f"{cpu} does not hold {args[1]} in the callback of {self.callout}, so {op} must fail")
            self.lock = None


_RANGE: Final = (-(2**INT_BITS), 2**INT_BITS - 1)

# kind of an argument or of an element of an event -> its check
_KINDS: Final[Mapping[str, Callable[[_Scenario, object], object]]] = {
    "lock": _Scenario._lock,
    "rw lock": _Scenario._rw_lock,
    "callout": lambda s, value: _member(value, s.callouts, "callout"),
    "fn": lambda s, value: _member(value, s.fns, "fn"),
    "integer": lambda s, value: _integer(value, "the number", *_RANGE),
    "delta": lambda s, value: _integer(value, "the delta", 0, _RANGE[1]),
    "cpu": _Scenario._cpu,
    "cpu or null": lambda s, value: None if value is None else s._cpu(value),
    "name": lambda s, value: _name(value, "the word"),
    "ticks": _Scenario._advance,
    "arg": _Scenario._arg,
    "op": lambda s, value: _member(value, s.ops, "op", "known:"),
    "result": lambda s, value: None,  # _check_result, which knows the op
}
