"""The order of locks, as witness(4) keeps it, and with it what a drain waits for. Checking mode only.

A graph says what was waited for with what held. Its nodes are classes of locks, and callbacks; its edges are::

    L -> M        M was waited for with L held
    L -> f()      a call waited, with L held, for a run of a callout whose callback is f()
    f() -> M      the callback f() waited for M; or M is the lock of a callout that a call waited for

A cycle is a deadlock that can happen, whether or not it did: each member is held by what waits for the next. So the
edge that would close one is refused, by an exception that names where each edge was first seen, and is not added: the
graph never has a cycle. The exception is raised before the lock is waited for, or the callback.

- A lock that is only tried is not waited for, so no edge leads to it; those that lead away from it count.
- Reading and writing count alike. What a thread holds already it does not wait for.
- A class of locks is what witness(4) calls a type: the name, or the type given to ``mtx_init()``. A lock that was given
  neither is a class of its own. To wait for a lock of a class of which another one is held is an error, too, since the
  same with the two exchanged looks the same; ``MTX_DUPOK`` allows it.
- A callback's node is its code, so what one callout taught is known of all that have the same function. That is how
  the lockdep of Linux sees a timer: del_timer_sync() of kernel/time/timer.c acquires a lock that the function holds.

Threads use the graph without a lock, so it can neither deadlock nor be found locked by a signal handler: a dict's
operations are atomic, and an edge is added first and examined then, so of two threads that close a cycle at the same
time at least one finds it. An edge that was added and, for an exception, not examined is examined next time.

The graph keeps no lock, callout or function alive. What has no lock left stays, since a lock of that name may come
again, until there are more than ``_MANY`` nodes; then it goes.

Source: subr_witness.c, witness_checkorder(); kernel/locking/lockdep.c.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Final, NoReturn

from . import frames
from .describe import called_by, name_of
from .errors import LockOrderError
from .guard import protected
from .units import CALLOUT_TRYLOCK

if TYPE_CHECKING:
    from .._api.callout import Callout
    from .._locks.lock import Lock
    from .machine import Machine
    from .platform import Thread
    from .state import Func

_MANY: Final = 1024


class LockKind:
    """A class of locks. Its locks keep it alive, and nothing else does."""

    __slots__ = ("__weakref__", "node")

    def __init__(self, node: Node) -> None:
        self.node = node


class Edge:
    """That something was waited for with something else held: in words, and whether it was looked for a cycle."""

    __slots__ = ("examined", "said")

    def __init__(self, said: str) -> None:
        self.said = said
        self.examined = False


class Node:
    """A class of locks, or a callback."""

    __slots__ = ("after", "alive", "dup_ok", "name", "returns")

    def __init__(self, name: str, *, returns: bool, dup_ok: bool = False) -> None:
        self.name = name
        self.returns = returns  # a lock of that name may be made when there is none
        self.dup_ok = dup_ok  # two of its locks may be held together
        self.alive: Callable[[], object] = _nothing  # what it stands for, None if that has died
        self.after: dict[Node, Edge] = {}

    def precedes(self, other: Node) -> bool:
        """Whether it is known that *other* may be waited for with this one held."""
        edge = self.after.get(other)
        return edge is not None and edge.examined

    def counts(self) -> bool:
        """Whether anything can still wait for it."""
        return self.returns or self.alive() is not None


def _nothing() -> None:
    """What a node stands for at first."""


# Where a thread is in the user's code, without a reference to its frame: the code, and how far it is there.
Spot = tuple[CodeType, int]

# A lock that is held: what it stands for in the graph (None: it is not watched), and where it was acquired.
Held = tuple["LockKind | None", "Spot | None"]


class Witness:
    """The order of the locks of one machine."""

    __slots__ = ("_limit", "_machine", "_nodes", "_running")

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._nodes: dict[object, Node] = {}
        self._limit = _MANY
        self._running: dict[Thread, list[Node]] = {}  # the callbacks that each thread is in

    def __len__(self) -> int:
        """Return how many classes and callbacks are known."""
        return len(self._nodes)

    # -- nodes -------------------------------------------------------------------------------------------------------

    @protected
    def enroll(self, kind: object, name: str | None, shown: str, dup_ok: bool) -> LockKind:
        """Return the class of a new lock of that *kind*: the one of that *name*, or, for None, one of its own."""
        if name is None:
            spot = frames.spot(2)
            made = "" if spot is None else f", made at {frames.place_of(*spot)}"
            node = Node(f"'{shown}'{made}", returns=False)
            return self._stand_for(node, node)
        key = kind, name, dup_ok
        known = self._nodes.get(key)
        if known is None:
            known = self._nodes.setdefault(key, Node(f"'{name}'", returns=True, dup_ok=dup_ok))
        mine = known.alive()
        return mine if isinstance(mine, LockKind) else self._stand_for(key, known)

    def _stand_for(self, key: object, node: Node) -> LockKind:
        kind = LockKind(node)
        node.alive = weakref.ref(kind)
        self._keep(key, node)
        return kind

    def _keep(self, key: object, node: Node) -> None:
        """Keep a node. The cost is constant on average: what has died is removed whenever there are twice as many."""
        self._nodes[key] = node
        if len(self._nodes) <= self._limit:
            return
        for each, one in self._nodes.copy().items():
            if one.alive() is None:
                self._nodes.pop(each, None)
        rest = self._nodes.copy()
        for one in rest.values():
            for other in one.after.copy():
                if other.alive() is None:
                    one.after.pop(other, None)
        self._limit = max(_MANY, 2 * len(rest))

    def _callback(self, func: object) -> Node:
        """Return the node of a callback."""
        code = _code_of(func)
        node = self._nodes.get(id(code))
        if node is None or node.alive() is not code:
            node = Node(f"the callback {name_of(_unwrapped(func))}()", returns=False)
            node.alive = weakref.ref(code)
            self._keep(id(code), node)
        return node

    # -- what happens ------------------------------------------------------------------------------------------------

    @protected
    def run(self, call: Callable[[Func, object], None], func: Func, arg: object) -> None:
        """Do ``call(func, arg)``, which runs a callback or a completion, and know meanwhile that it runs."""
        inside = self._running.setdefault(self._machine.platform.current_thread(), [])
        inside.append(self._callback(func))
        try:
            call(func, arg)
        finally:
            del inside[-1]

    def is_inside(self, me: Thread) -> bool:
        """Return whether thread *me* runs a callback."""
        return bool(self._running.get(me))

    def acquire(self, call: str, lock: Lock, kind: LockKind, mine: Iterable[Held], spot: Spot | None) -> None:
        """Raise if *call* must not wait for *lock*, of class *kind*, here with the locks *mine* held."""
        node = kind.node
        added: list[Node] = []
        try:
            for other, since in mine:
                if other is not None:
                    say = partial(self._acquires, node, spot, other.node, since)
                    self._follow(call, other.node, node, lock, say, added)
            for callback in self._running.get(self._machine.platform.current_thread(), ()):
                self._follow(call, callback, node, lock, partial(self._acquires_inside, node, spot, callback), added)
        except LockOrderError:  # then nothing is waited for, with anything held
            for first in added:
                first.after.pop(node, None)
            raise

    def acquire_again(self, call: str, lock: Lock, kind: LockKind, held: LockKind) -> None:
        """Raise if *call*, which releases *lock* while it waits, must not acquire it again with a lock of class *held*
        held.
        """
        say = partial(self._acquires_again, call, kind.node, frames.spot(2), held.node)
        self._follow(call, held.node, kind.node, lock, say, [])

    def wait(self, call: str, c: Callout, lock: Lock, kind: LockKind, since: Spot | None, own: LockKind | None) -> None:
        """Raise if *call* must not wait for a run of *c*, whose lock is of class *own*, with *lock* held."""
        spot = frames.spot(2)
        for callback in self._callbacks(c):
            if own is not None and not c.flags & CALLOUT_TRYLOCK:
                said = f"softclock acquires {own.node.name} for {callback.name}: it is the callout's lock"
                self._follow(call, callback, own.node, lock, partial(str, said), [], c)
            say = partial(self._waits, call, spot, callback, kind.node, since)
            self._follow(call, kind.node, callback, lock, say, [], c)

    def known(self, c: Callout, kind: LockKind) -> str:
        """Return, for the end of a message, how the callback of *c* comes to wait for a lock of that class."""
        for callback in self._callbacks(c):
            steps = _path(callback, kind.node)
            if steps:
                return "; " + "; ".join(edge.said for _, edge in steps)
        return ""

    def _callbacks(self, c: Callout) -> list[Node]:
        """Return the nodes of what a run of *c* calls: the one in progress, and another one."""
        run = c.run
        funcs = (c.func, None if run is None else run.func)
        return [self._callback(func) for func in funcs if func is not None]

    # -- edges -------------------------------------------------------------------------------------------------------

    def _follow(
        self,
        call: str,
        first: Node,
        then: Node,
        lock: Lock,
        say: Callable[[], str],
        added: list[Node],
        c: Callout | None = None,
    ) -> None:
        """Have *then* be after *first*, and *first* be *added* if that is new; raise if it was before."""
        if first is then:
            if not first.dup_ok:
                self._refuse(
                    call,
                    f"two locks of the class {first.name} are held together: {say()}; the same with the two exchanged "
                    "would be a deadlock. Give them names of their own, or, if their order is certain, MTX_DUPOK",
                    lock,
                    None,
                )
            return
        if first.precedes(then):
            return
        edge = first.after[then] = Edge(say())
        steps = _path(then, first)
        if steps is None:
            edge.examined = True
            added.append(first)
            return
        first.after.pop(then, None)
        names = " -> ".join(node.name for node in (then, *(node for node, _ in steps), then))
        told = "".join(f"\n  {number}. {each.said}" for number, each in enumerate([e for _, e in steps] + [edge], 1))
        self._refuse(
            call,
            f"lock order reversal: {names}, where what holds one may wait for the next:{told}\n"
            "Nothing was acquired or waited for. Acquire locks in one order everywhere; before a drain, release what "
            "the callback acquires, or use callout_drain_async()",
            lock,
            c,
        )

    def _refuse(self, call: str, text: str, lock: Lock, c: Callout | None) -> NoReturn:
        error = LockOrderError(f"{call}: {text}" if call else text, call=call, lock=lock, callout=c)
        if self._machine.faults is not None:
            self._machine.faults.append(error)
        raise error

    # -- words -------------------------------------------------------------------------------------------------------

    def _who(self) -> str:
        platform = self._machine.platform
        name = platform.name_of(platform.current_thread())
        cpu = f"cpu {platform.current_cpu()}"
        return name if cpu in name else f"{name} on {cpu}"

    def _acquires(self, node: Node, spot: Spot | None, held: Node, since: Spot | None) -> str:
        return f"{self._who()} acquires {node.name}{_at(spot)} with {held.name} held{_since(since)}"

    def _acquires_inside(self, node: Node, spot: Spot | None, callback: Node) -> str:
        return f"{callback.name}, run by {self._who()}, acquires {node.name}{_at(spot)}"

    def _acquires_again(self, call: str, node: Node, spot: Spot | None, held: Node) -> str:
        return f"{self._who()} waits in {call}(){_at(spot)}, and then acquires {node.name} with {held.name} held"

    def _waits(self, call: str, spot: Spot | None, callback: Node, held: Node, since: Spot | None) -> str:
        return f"{self._who()} waits in {call}(){_at(spot)} for {callback.name} with {held.name} held{_since(since)}"


def _path(start: Node, goal: Node) -> list[tuple[Node, Edge]] | None:
    """Return the shortest way from *start* to *goal*, each node with the edge to it; None if there is none."""
    ways: dict[Node, tuple[Node, Edge] | None] = {start: None}
    queue = deque([start])
    while queue:
        node = queue.popleft()
        for other, edge in node.after.copy().items():
            if other not in ways and other.counts():
                ways[other] = node, edge
                queue.append(other)
    if goal not in ways:
        return None
    steps: list[tuple[Node, Edge]] = []
    while (way := ways[goal]) is not None:
        before, edge = way
        steps.append((goal, edge))
        goal = before
    return steps[::-1]


def _unwrapped(func: object) -> object:
    """Return what is called in the end: by a partial, a bound method, a decorated function or another callable that
    names it as ``functools.wraps()`` does.
    """
    for _ in range(8):
        inner = called_by(func)
        if inner is None:
            try:
                inner = getattr(func, "__wrapped__", None)
            except Exception:  # the user's
                inner = None
        if inner is None:
            break
        func = inner
    return func


def _code_of(func: object) -> object:
    """Return what stands for a callback: its code, or for what has none its type."""
    func = _unwrapped(func)
    return func.__code__ if type(func) is FunctionType else type(func)


def _at(spot: Spot | None) -> str:
    return "" if spot is None else f" at {frames.place_of(*spot)}"


def _since(spot: Spot | None) -> str:
    return "" if spot is None else f", acquired at {frames.place_of(*spot)}"
