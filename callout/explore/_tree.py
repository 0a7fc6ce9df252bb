"""The tree of schedules that a search walks: what could run at each switch point, what was tried, what is left."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from .._worlds.virtual.context import Context
from .._worlds.virtual.footprints import WORLD, Footprint
from .._worlds.virtual.platform import VirtualPlatform
from .._worlds.virtual.trail import Trail
from ._reduction import Order, conflict

Key = tuple[int, str | None, int]  # the digest of what has happened, who stood there, and who has to let others go

Leader = Callable[[VirtualPlatform, Sequence[Context], Context | None], Context]

MEMORY: Final = 1_000_000  # how many switch points are remembered


class Race(NamedTuple):
    """A race with a step that comes before a switch point, of one that comes after it."""

    rival: str  # the context of the earlier step
    nth: int  # which of its steps it is
    name: str  # the context of the later step
    alone: bool  # without the earlier step only that one can go on


class Seen(NamedTuple):
    """What was searched to the end: all that follows a switch point."""

    spent: int  # how many preemptions came before
    owes: set[Race | str]  # what later steps ask of the way that leads here


class Node:
    """A switch point."""

    __slots__ = (
        "begun",
        "chosen",
        "current",
        "feet",
        "key",
        "left",
        "names",
        "owes",
        "points",
        "sleeping",
        "spent",
        "step",
        "tried",
    )

    def __init__(
        self, names: tuple[str, ...], current: str | None, spent: int, step: int, points: int, chosen: str
    ) -> None:
        self.names = names  # which contexts could run, oldest first
        self.current = current  # the one of them that stood here
        self.spent = spent  # how many preemptions came before
        self.step = step  # how many switch points came before
        self.points = points  # how long the trail was
        self.chosen = chosen
        self.tried = {chosen}
        self.left: set[str] = set()  # to be tried
        self.sleeping: dict[str, Footprint] = {}  # what need not be tried, until something conflicts with its step
        self.feet: dict[str, Footprint] = {}  # of the steps that were tried
        self.key: Key | None = None  # the same where equivalent schedules have led
        self.owes: set[Race | str] = set()  # what later steps ask of the way that leads here
        self.begun = 0  # in which run

    def costs(self, name: str) -> int:
        """Return how many preemptions it takes to choose that one."""
        return int(self.current is not None and name != self.current)

    def order(self) -> list[str]:
        """Return what could run, the one that costs nothing first."""
        if self.current is None:
            return list(self.names)
        return [self.current, *(name for name in self.names if name != self.current)]

    def choose(self) -> bool:
        """Choose the next branch that is left; return whether there is one."""
        if not self.left:
            return False
        self.chosen = next(name for name in self.order() if name in self.left)
        self.left.discard(self.chosen)
        self.tried.add(self.chosen)
        return True


class Pruned(Exception):  # noqa: N818 - no error
    """Whatever could run here leads to what was seen already."""


class Walk:
    """One run: a chooser that follows the tree as far as that goes, and makes it longer."""

    def __init__(self, tree: Tree, fixed: int) -> None:
        """The first *fixed* choices are given."""
        self.tree = tree
        self.nodes = tree.nodes
        self.fixed = fixed
        self.depth = 0
        self.feet = tree.feet
        self.order = tree.order
        self.known = max(fixed - 1, 0)  # so many steps are those of the run before
        self.repeats = self.known > 0
        del tree.feet[self.known :]
        tree.order.cut(self.known)
        self.trail = Trail()
        self.platform: VirtualPlatform
        self.tracks = tree.reduces
        self.world = tree.world
        self.stays = False
        self.differs = ""
        self.names_after: tuple[str, ...] = ()  # what could run where a run was ended as a repetition
        self._bound = tree.bound

    def choose(self, runnable: Sequence[Context], current: Context | None) -> Context:
        """Follow the tree, then go on with the current context, or the oldest."""
        depth = self.depth
        if self.tracks:
            self.harvest()
        self.depth = depth + 1
        self.repeats = depth < self.known
        if depth < self.fixed:
            return self._follow(depth, runnable, current)
        return self._extend(depth, runnable, current)

    def harvest(self) -> None:
        """Take the footprint of the step that has ended."""
        platform = self.platform
        foot = platform.foot
        assert foot is not None
        platform.foot = {}
        step = self.depth - 1
        if step < 0:
            return
        if not self.tree.world:
            foot.pop(WORLD, None)
        if step < self.known:
            if foot != self.feet[step] and not self.differs:
                self.differs = (
                    f"the step after switch point {self.nodes[step].step} has used other things than in the run that "
                    "made the same choices before"
                )
        else:
            node = self.nodes[step]
            node.feet[node.chosen] = foot
            self.feet.append(foot)
            self.order.add(node.chosen, foot)

    def _follow(self, depth: int, runnable: Sequence[Context], current: Context | None) -> Context:
        node = self.nodes[depth]
        names = tuple([context.name for context in runnable])
        if names != node.names:
            self.differs = (
                f"at choice {depth} {', '.join(names)} could run, after {self.platform.steps} switch points, and with "
                f"the same choices before it were {', '.join(node.names)}, after {node.step}"
            )
            self.fixed = self.known = depth  # let it run on: what goes wrong in it may say why it differs
            del self.nodes[depth:], self.feet[depth:]
            self.order.cut(depth)
            return self._extend(depth, runnable, current)
        if self.tree.leads is not None:
            self.tree.leads(self.platform, runnable, current)  # what has run decides what is next
        elif not self.tracks:
            self._note_spent(node.spent + node.costs(node.chosen))
        return runnable[names.index(node.chosen)]

    def _note_spent(self, spent: int) -> None:
        self.stays = self._bound is not None and spent >= self._bound

    def _extend(self, depth: int, runnable: Sequence[Context], current: Context | None) -> Context:
        tree, nodes = self.tree, self.nodes
        spent = 0
        if depth:
            last = nodes[depth - 1]
            spent = last.spent + last.costs(last.chosen)
        if tree.leads is not None:
            current = tree.leads(self.platform, runnable, current)
        chosen = runnable[0] if current is None else current
        names = tuple([context.name for context in runnable])
        node = Node(
            names,
            None if current is None else current.name,
            spent,
            self.platform.steps,
            len(self.trail.points),
            chosen.name,
        )
        if tree.sleeps and depth and (nodes[depth - 1].sleeping or len(nodes[depth - 1].tried) > 1):
            last, foot = nodes[depth - 1], self.feet[depth - 1]
            asleep = {**last.sleeping, **{name: last.feet[name] for name in last.tried if name in last.feet}}
            asleep.pop(last.chosen, None)
            node.sleeping = {name: its for name, its in asleep.items() if not conflict(its, foot)}
            if chosen.name in node.sleeping:
                awake = [context for context in runnable if context.name not in node.sleeping]
                if not awake:
                    return self._end(chosen, names)
                chosen = awake[0]
                node.chosen = chosen.name
                node.tried = {chosen.name}
        elif tree.remembers and len(names) > 1:
            node.key = self.order.digest, node.current, self.platform.fairness.digest()
            node.begun = tree.runs
            seen = tree.seen.get(node.key)
            if seen is not None and seen.spent <= spent:
                tree.pay(self.order, depth, seen.owes)
                return self._end(chosen, names)
        nodes.append(node)
        if not self.tracks:
            if current is None or self._bound is None or spent < self._bound:
                node.left.update(names)
                node.left.discard(chosen.name)
            if tree.leads is None:
                self._note_spent(spent + node.costs(chosen.name))
        return chosen

    def _end(self, chosen: Context, names: tuple[str, ...]) -> Context:
        """End the run as a repetition. Nothing is raised here: it would keep alive what is on the user's stack."""
        self.names_after = names
        self.platform.fail(Pruned())
        return chosen


class Tree:
    """All that is known of the schedules of a scenario."""

    def __init__(self, bound: int | None, *, reduces: bool, world: bool, leads: Leader | None = None) -> None:
        """*bound*: how many preemptions a schedule may have; *world*: whether plain variables may be shared.

        *leads* says which context is to go on: every other choice counts as a preemption.
        """
        self.bound = bound
        self.leads = leads
        self.reduces = reduces
        self.sleeps = reduces and bound is None
        self.remembers = reduces and bound is not None
        self.world = world
        self.nodes: list[Node] = []
        self.base = 0  # so many of them are not this search's, which is a part of another: it does not go on with them
        self.feet: list[Footprint] = []  # of the steps of the last run
        self.order = Order()  # and what comes before what in it
        self.seen: dict[Key, Seen] = {}  # what was searched to the end
        self.news: dict[Key, Seen] = {}  # those of them that had more than one branch
        self.runs = 0

    def script(self) -> list[tuple[int, str]]:
        """Return which context went on in the last run, at each switch point where several could."""
        return [(node.step, node.chosen) for node in self.nodes if len(node.names) > 1]

    def learn(self, walk: Walk) -> None:
        """Add the branches that a run, which has ended, shows to be worth trying."""
        if not self.reduces:
            return
        nodes, order = self.nodes, walk.order
        del nodes[len(walk.feet) :]
        new = walk.known  # the races of what came before are known
        for step in range(new, len(nodes)):
            for rival in order.races[step]:
                self._reverse(order, rival, step)
            if not self.sleeps:
                for rival in order.waits[step]:
                    if nodes[step].chosen in nodes[rival].names:
                        self._reverse(order, rival, step)
        for at in range(new, len(nodes)):
            node = nodes[at]
            after = nodes[at + 1].names if at + 1 < len(nodes) else walk.names_after
            if after:
                for name in node.names:
                    if name not in after and name != node.chosen:
                        self._try(at, name)

    def _reverse(self, order: Order, rival: int, step: int) -> None:
        """Have *step* come before its *rival* in another run."""
        nodes = self.nodes
        node, name = nodes[rival], nodes[step].chosen
        first = order.first_of(rival, step)
        if self.sleeps:
            if not any(each in node.tried or each in node.left for each in first):
                able = [each for each in first if each in node.names]
                if able:
                    node.left.add(name if name in able else able[0])
                elif first != [name]:
                    node.left.update(each for each in node.names if each not in node.tried)
            return
        race = Race(order.contexts[order.who[rival]], order.nth[rival], name, alone=first == [name])
        for between in range(rival + 1, step + 1):
            nodes[between].owes.add(race)
        self._settle(rival, race)

    def _settle(self, rival: int, race: Race) -> None:
        if race.name in self.nodes[rival].names:
            self._try(rival, race.name)
        elif not race.alone:  # else only its rival makes it possible
            for name in self.nodes[rival].names:
                self._try(rival, name)

    def pay(self, order: Order, depth: int, owes: Iterable[Race | str]) -> None:
        """Do for the way that leads here what was done for another, equivalent one: what follows was searched there."""
        nodes = self.nodes
        steps = zip(order.who, order.nth, strict=True)
        at = {(order.contexts[who], nth): step for step, (who, nth) in enumerate(steps)}
        for race in owes:
            if isinstance(race, Race):
                rival = at[race.rival, race.nth]
                for between in range(rival + 1, depth):
                    nodes[between].owes.add(race)
                self._settle(rival, race)
            else:
                self._try_where_it_was_passed_on(depth, race)

    def _try(self, at: int, name: str) -> None:
        """Have that one run at a node, and where the turn was passed on before that, at no cost."""
        node = self.nodes[at]
        if name in node.names:
            self._leave(node, name)
        if not self.sleeps:
            self._try_where_it_was_passed_on(at, name)

    def _try_where_it_was_passed_on(self, at: int, name: str) -> None:
        nodes = self.nodes
        while at:
            if at < len(nodes):
                nodes[at].owes.add(name)
            at -= 1
            if not at or nodes[at - 1].chosen != nodes[at].chosen:
                break
        node = nodes[at]
        for each in [name] if name in node.names else node.names:
            self._leave(node, each)

    def _leave(self, node: Node, name: str) -> None:
        if name not in node.tried and (self.bound is None or node.spent + node.costs(name) <= self.bound):
            node.left.add(name)

    def next(self) -> int:
        """Go on to the next schedule: return how many of its choices are given; 0 if there is none."""
        nodes = self.nodes
        self.runs += 1
        while len(nodes) > self.base:
            node = nodes[-1]
            if self.sleeps:
                node.left.difference_update(node.sleeping)
            if node.choose():
                return len(nodes)
            nodes.pop()
            if node.key is not None and len(self.seen) < MEMORY:
                self.seen[node.key] = seen = Seen(node.spent, node.owes)
                if node.begun + 1 < self.runs:
                    self.news[node.key] = seen
        return 0
