"""A search that is split by schedule prefixes into parts, each of which an executor's worker can run by itself.

A *part* is the stack of a depth-first search: nodes that only say how to get there, and below them its own, with the
branches that are left. A worker searches on from there, with the sleep sets that the part has inherited, until all is
done or it has made ``SLICE`` steps, and hands the stack on to this process. If there are too few parts it is cut below
the topmost node with branches left, and each piece is a part again.

Why nothing is lost:

- A node has one owner at a time, so its branches are tried one after the other, and what was tried before a branch
  sleeps in it. That is the order of one process; when they are tried has no part in the proof.
- The races that a part finds with steps below its own nodes come back as branches for those nodes. A node that nobody
  owns, and that has a branch which was not tried, becomes a part, as often as it takes. The search is over when there
  is no part and no such node.
- With a bound, a worker remembers what was searched to the end, but a node only if it has searched that from its first
  branch to its last: none that was ever handed on. What it asks of the nodes above is remembered with it, as in one
  process. Workers tell each other, a moment later. What one does not know it searches again, which costs time and
  changes nothing else.

Results are handled in the order in which their parts were made, not in which they come. So without a bound, and without
the reduction, everything is the same from one search to the next, the violation that is found too. With both it
depends on what each worker remembers.
"""

from __future__ import annotations

import copy
import pickle
import threading
import uuid
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future
from itertools import pairwise
from typing import Final, NamedTuple

from .._worlds.virtual.trail import Trail
from ._outcome import NondeterminismError
from ._progress import Progress
from ._run import Scenario
from ._schedule import Setting
from ._search import Failure, Found, Search, Told
from ._tree import Key, Node, Seen, Tree
from ._workers import Workers

SLICE: Final = 5_000  # switch points: some tenths of a second
ALONE: Final = 3_000  # with so many, a search is not worth being split
AT_FIRST: Final = 8  # parts that are handed out
LATER: Final = 4  # and one more for so many that have ended
AT_MOST: Final = 1_000

one_at_a_time: Final = threading.Lock()  # in a process: the virtual machine changes what all threads share


class Space(NamedTuple):
    """What is searched."""

    name: str  # no other search has it
    scenario: Scenario
    setting: Setting
    max_steps: int
    bound: int | None
    reduces: bool
    world: bool


class News(NamedTuple):
    """What a worker has searched to the end, for the others."""

    name: str  # no other has it
    pickled: bytes  # a dict, as that of a tree; this process has no use for it


class Part(NamedTuple):
    """A part of the search."""

    nodes: list[Node]
    base: int  # how many of them are not its own
    trail: Trail  # of the run whose choices the next one repeats
    news: list[News]


class Done(NamedTuple):
    """What came of it."""

    told: Told
    asked: list[set[str]]  # branches for the nodes that are not its own
    top: Node  # the first one of its own
    stack: list[Node]  # its own nodes, if it has not come to the end
    trail: Trail | None
    news: News | None


class Memory:
    """What a process knows to be searched to the end, of one search."""

    def __init__(self) -> None:
        self.name = ""
        self.seen: dict[Key, Seen] = {}
        self._heard: set[str] = set()

    def open(self, name: str, news: Iterable[News]) -> dict[Key, Seen]:
        """Return all that is known of the search of that name."""
        if name != self.name:
            self.name, self.seen, self._heard = name, {}, set()
        for each in news:
            if each.name not in self._heard:
                self._heard.add(each.name)
                for key, its in pickle.loads(each.pickled).items():  # noqa: S301 - pickled by a worker of ours
                    known = self.seen.get(key)
                    if known is None or its.spent < known.spent:
                        self.seen[key] = its
        return self.seen

    def tell(self, seen: dict[Key, Seen]) -> News | None:
        """Return what is new, for the others."""
        if not seen:
            return None
        news = News(uuid.uuid4().hex, pickle.dumps(seen, pickle.HIGHEST_PROTOCOL))
        self._heard.add(news.name)
        return news


MEMORY = Memory()  # of this process


def bare(node: Node, chosen: str | None = None) -> Node:
    """Return a copy of a node without what one process alone can use."""
    node = copy.copy(node)
    node.key = None
    node.owes = set()
    node.tried = set(node.tried)
    node.left = set(node.left)
    node.feet = dict(node.feet)
    if chosen is not None:
        node.chosen = chosen
    return node


def search(space: Space, part: Part, most: int) -> Done:
    """Search a part, for a slice and not many more than *most* schedules; in whatever process this runs."""
    with one_at_a_time:
        tree = Tree(space.bound, reduces=space.reduces, world=space.world)
        tree.nodes, tree.base = part.nodes, part.base
        tree.seen = MEMORY.open(space.name, part.news)
        if space.reduces:
            for node in part.nodes[:-1]:
                foot = node.feet[node.chosen]
                tree.feet.append(foot)
                tree.order.add(node.chosen, foot)
        top = part.nodes[part.base]
        runs = Search(space.scenario, space.setting, space.max_steps, tree)
        runs.before = part.trail
        fixed = 0
        failure: Failure | None = None
        differs = ""
        try:
            fixed = runs.on(len(part.nodes), lambda: runs.steps >= SLICE or runs.schedules >= most)
        except Found as found:
            failure = found.failure
        except NondeterminismError as error:
            differs = str(error)
        return Done(
            runs.told(failure, differs),
            [node.left for node in tree.nodes[: part.base]],
            bare(top),
            [bare(node) for node in tree.nodes[part.base :]] if fixed else [],
            runs.before if fixed else None,
            MEMORY.tell(tree.news),
        )


class Fork:
    """A node that more than one part may ask for branches."""

    def __init__(self, node: Node) -> None:
        self.node = node  # with every branch in it that is known: those of its owner, too
        self.owned = False  # a part has it as its first node

    def learn(self, other: Node) -> None:
        """Learn what its owner knows."""
        node = self.node
        node.tried |= other.tried
        node.feet.update(other.feet)
        self.ask(other.left)

    def ask(self, names: Iterable[str]) -> None:
        """Have these branches tried, and no more those that were."""
        self.node.left.update(names)
        self.node.left -= self.node.tried

    def for_others(self, chosen: str) -> Node:
        """Return what a part has to know that lies in a branch of it."""
        node = bare(self.node, chosen)
        node.tried |= node.left
        node.left = set()
        return node

    def for_owner(self, *, sleeps: bool) -> Node | None:
        """Return the node with its next branch chosen; None if there is none."""
        node = bare(self.node)
        if sleeps:
            node.left.difference_update(node.sleeping)
        return node if node.choose() else None


class Piece(NamedTuple):
    """A part, as this process knows it."""

    path: tuple[tuple[Fork, str], ...]  # the nodes that are not its own, and their branches that lead to it
    top: Fork  # the first node of its own
    stack: list[Node]
    trail: Trail

    def part(self, news: list[News]) -> Part:
        """Return what a worker has to know of it."""
        nodes = [fork.for_others(chosen) for fork, chosen in self.path]
        return Part([*nodes, *self.stack], len(nodes), self.trail, news)


class Split:
    """A search that goes on in parts."""

    def __init__(self, space: Space, runs: Search, workers: Workers, progress: Progress, trail: Trail) -> None:
        """Go on with *runs*, whose last run has left that trail."""
        stack = runs.tree.nodes
        self._space = space
        self._runs = runs
        self._workers = workers
        self._progress = progress
        self._waiting: deque[Piece] = deque()
        self._running: deque[tuple[Piece, Future[Done]]] = deque()
        self._ended = 0
        first = Memory().tell(runs.tree.news)
        self._news: deque[News] = deque([first] if first is not None else [])  # the latest
        top = Fork(bare(stack[0]))
        top.owned = True
        self._cut(Piece((), top, [bare(node) for node in stack], trail))

    def go(self, most: int) -> bool:
        """Search until a schedule goes wrong, which raises; or a limit is reached; or all is done: return whether."""
        runs, workers = self._runs, self._workers
        while True:
            while self._waiting and len(self._running) < self._wanted():
                piece = self._waiting.popleft()
                self._running.append(
                    (piece, workers.submit(search, self._space, piece.part(list(self._news)), most - runs.schedules))
                )
            if not self._running:
                return True
            piece, future = self._running[0]
            done = workers.result(future, self._progress.wait())
            if done is not None:
                self._running.popleft()
                runs.add(done.told)
                self._ended += 1
                self._handle(piece, done)
                if done.news is not None:
                    self._news.append(done.news)
                while len(self._news) > 2 * self._wanted():
                    self._news.popleft()
            if runs.schedules >= most or self._progress.is_over(runs.schedules, self._where):
                return not self._waiting and not self._running

    def _where(self) -> str:
        return f"{len(self._waiting) + len(self._running)} parts of the tree under way"

    def _wanted(self) -> int:
        """Return how many parts there should be: more and more of them, as a long search may have many workers."""
        return min(AT_FIRST + self._ended // LATER, AT_MOST)

    def _handle(self, piece: Piece, done: Done) -> None:
        piece.top.learn(done.top)
        for (fork, _), names in zip(piece.path, done.asked, strict=True):
            fork.ask(names)
        if done.stack:
            assert done.trail is not None
            self._cut(Piece(piece.path, piece.top, done.stack, done.trail))
        else:
            piece.top.owned = False
            self._own(piece.path, piece.top, piece.trail)
        for at, (fork, _) in enumerate(piece.path):
            self._own(piece.path[:at], fork, piece.trail)

    def _own(self, path: tuple[tuple[Fork, str], ...], fork: Fork, trail: Trail) -> None:
        """Make a part of a node that has branches left and no owner."""
        if not fork.owned:
            node = fork.for_owner(sleeps=self._space.reduces and self._space.bound is None)
            if node is not None:
                fork.owned = True
                self._waiting.append(Piece(path, fork, [node], trail))

    def _cut(self, piece: Piece) -> None:
        """Have a piece gone on with, as several if there are too few."""
        path, top, stack, trail = piece
        while len(self._waiting) + len(self._running) < self._wanted():
            # The last node's branch was not run yet, so nothing can lie above it.
            at = next((at for at, node in enumerate(stack[:-1]) if node.left), None)
            if at is None:
                break
            for node, after in pairwise(stack[: at + 2]):
                top.owned = False
                self._own(path, top, trail)
                path = (*path, (top, node.chosen))
                top = Fork(bare(after))
            top.owned = True
            stack = stack[at + 1 :]
        self._waiting.append(Piece(path, top, stack, trail))


def split(space: Space, workers: Workers, progress: Progress, most: int, runs: Search) -> bool:
    """Search all of a space: at first here, as *runs*, then in parts. Return whether all of it was searched."""

    def stops() -> bool:
        return runs.schedules >= most or progress.is_over(runs.schedules, str)

    over = False

    def enough() -> bool:
        nonlocal over
        over = stops()
        return over or runs.steps >= ALONE

    fixed = runs.on(0, enough)
    done = not fixed
    if fixed and not over:
        assert runs.before is not None
        done = Split(space, runs, workers, progress, runs.before).go(most)
    runs.look_at_the_first_again()
    return done


def new_name() -> str:
    """Return a name for a search, which is in no other process the name of another one."""
    return uuid.uuid4().hex
