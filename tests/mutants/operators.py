"""Which mutants there are: found in the syntax trees, so that none can be left out by forgetting it.

Every function of every module of ``callout/_core`` and ``callout/_locks`` is walked. The operators are:

- ``true``, ``false``: a check (of ``if``, ``while``, a conditional expression, or a comparison whose value is used) has
  always that outcome.
- ``dropped``: one operand of ``and`` or ``or`` is not looked at.
- ``boundary``: ``<`` for ``<=``, and the three others.
- ``deleted``: a statement is not done: a call whose value is not used, or a store to a field, one target at a time; or
  what is replaced is not kept until the lock was released (by a local ``old``, or one with an underscore).
- ``swapped``: two neighbours change places, of which one synchronizes: acquires, releases, wakes, programs, parks,
  publishes.
- ``unlocked``: a function does not acquire the lock that it releases.
- ``early``: a lock is released just before the last thing that is done under it.

A mutant's name says the module, the function, the source of what is changed, and how; where a function has the same
source several times, which of them. No line number is in it, and neither comments nor the format matter.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import callout

ROOT: Final = Path(callout.__file__).parent

# No statement of these does anything: they hold records, tables and protocols.
DATA_ONLY: Final = frozenset(
    {
        "callout._core",
        "callout._core.levels",
        "callout._core.platform",
        "callout._core.rawlock",
        "callout._core.signatures",
        "callout._locks",
    }
)
# What is only said, not done: a wrong word is not a race.
WORDS: Final = frozenset({"__repr__", "__str__", "__reduce_ex__", "_holder"})

Step = tuple[str, int | None]
Place = tuple[Step, ...]
Edit = Callable[[ast.Module], None]

BOUNDARIES: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
}
ACQUIRE: Final = frozenset({"acquire", "acquire_both", "_acquire_raw"})
LOCKING: Final = frozenset({"lock_callout", "lock_callout_and"})  # they acquire, and return a CPU
RELEASE: Final = frozenset({"release", "release_as", "_unlock"})
SYNCHRONIZE: Final = (
    ACQUIRE
    | LOCKING
    | RELEASE
    | {
        "add",
        "append",
        "attach",
        "claim",
        "drop_all",
        "end",
        "interrupt",
        "popleft",
        "poison",
        "program",
        "serve",
        "set",
        "set_event",
        "set_here",
        "tell",
        "try_acquire",
        "wait",
        "wake",
        "wake_all",
        "_file_again",
        "_lock_for",
        "_try",
    }
)


@dataclass(frozen=True)
class Mutation:
    """One thing wrong in one function."""

    module: str
    function: str
    source: str
    operator: str
    line: int  # of the statement: what does not execute it cannot find the mutant
    edit: Edit

    @property
    def name(self) -> str:
        """A name that lasts as long as the code in question."""
        return f"{self.module.removeprefix('callout.')}:{self.function} | {self.source} | {self.operator}"

    def tree(self) -> ast.Module:
        """Return the tree of the module with this wrong."""
        tree = parse(self.module)
        self.edit(tree)
        return ast.fix_missing_locations(tree)


def modules() -> list[str]:
    """Return the names of all modules of the core and the locks."""
    names = []
    for folder in ("_core", "_locks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT.parent).with_suffix("").parts
            names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return names


def path_of(module: str) -> Path:
    """Return the file of a module."""
    path = ROOT.parent.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def parse(module: str) -> ast.Module:
    """Return a fresh tree of a module."""
    return ast.parse(path_of(module).read_text(encoding="utf-8"))


def all_mutations() -> list[Mutation]:
    """Return every mutant, in the order of the source. Names are unique."""
    out: list[Mutation] = []
    for module in modules():
        seen: Counter[str] = Counter()
        for function, place, node in functions(parse(module)):
            for source, operator, line, edit in _of_function(place, node):
                first = Mutation(module, function, source, operator, line, edit)
                seen[first.name] += 1
                count = seen[first.name]
                out.append(
                    first if count == 1 else Mutation(module, function, f"{source} #{count}", operator, line, edit)
                )
    return out


# -- the tree ----------------------------------------------------------------------------------------------------------


def functions(tree: ast.Module) -> Iterator[tuple[str, Place, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Yield the outermost functions and methods of a module, but for those that only word something."""

    def walk(
        body: list[ast.stmt], place: Place, field: str, prefix: str
    ) -> Iterator[tuple[str, Place, ast.FunctionDef | ast.AsyncFunctionDef]]:
        for index, node in enumerate(body):
            here = (*place, (field, index))
            if isinstance(node, ast.ClassDef):
                yield from walk(node.body, here, "body", f"{prefix}{node.name}.")
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name not in WORDS:
                yield f"{prefix}{node.name}", here, node
            elif isinstance(node, ast.If):
                yield from walk(node.body, here, "body", prefix)
                yield from walk(node.orelse, here, "orelse", prefix)

    return walk(tree.body, (), "body", "")


def at(tree: ast.AST, place: Place) -> ast.AST:
    """Return the node at a place."""
    node: ast.AST = tree
    for field, index in place:
        value = getattr(node, field)
        node = value if index is None else value[index]
    return node


def put(place: Place, make: Callable[[ast.AST], ast.AST]) -> Edit:
    """Return the edit that replaces the node at a place."""

    def edit(tree: ast.Module) -> None:
        parent = at(tree, place[:-1])
        field, index = place[-1]
        value = getattr(parent, field)
        old = value if index is None else value[index]
        new = ast.copy_location(make(old), old)
        if index is None:
            setattr(parent, field, new)
        else:
            value[index] = new

    return edit


def constant(value: bool) -> Callable[[ast.AST], ast.AST]:
    """Return what replaces a check by its outcome."""
    return lambda _: ast.Constant(value)


def nothing(node: ast.AST) -> ast.AST:
    """Replace a statement by none; what calls ``super()`` still knows the class, or it could not be planted."""
    return ast.Expr(ast.Name("__class__", ast.Load())) if "super" in uses(node) else ast.Pass()


def short(node: ast.AST) -> str:
    """Return the source of a node on one line."""
    return " ".join(ast.unparse(node).split())


def name_called(node: ast.AST) -> str:
    """Return the last part of the name of the function that is called; "" if this is no call."""
    if isinstance(node, ast.Await):
        node = node.value
    if not isinstance(node, ast.Call):
        return ""
    function = node.func
    return (
        function.id if isinstance(function, ast.Name) else function.attr if isinstance(function, ast.Attribute) else ""
    )


def synchronizes(node: ast.AST) -> bool:
    """Whether a statement acquires, releases, wakes, programs, parks or publishes."""
    return any(name_called(each) in SYNCHRONIZE for each in ast.walk(node))


def is_shared(node: ast.AST) -> bool:
    """Whether a statement has to do with more than local names, new records, the current thread and the time."""
    if isinstance(node, ast.Assign) and name_called(node.value) in ("me", "now", "current_thread"):
        return False
    return any(
        isinstance(each, ast.Attribute | ast.Subscript)
        or (isinstance(each, ast.Call) and name_called(each)[:1].islower())
        for each in ast.walk(node)
    )


def binds(node: ast.AST) -> set[str]:
    """Return the local names that a statement binds."""
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)}


def uses(node: ast.AST) -> set[str]:
    """Return the names that a statement reads."""
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Load)}


def leaves(node: ast.AST) -> bool:
    """Whether a statement always goes elsewhere, or is none."""
    if isinstance(node, ast.Return | ast.Raise | ast.Break | ast.Continue | ast.Pass | ast.FunctionDef | ast.Assert):
        return True
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


# -- the operators -----------------------------------------------------------------------------------------------------

Found = tuple[str, str, int, Edit]


def _of_function(place: Place, function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[Found]:
    for here, block in _blocks(place, function):
        for index, node in enumerate(block):
            spot = (*here[:-1], (str(here[-1][0]), index))
            yield from _checks(spot, node)
            yield from _deletions(spot, node)
            if index + 1 < len(block) and function.name != "__init__":  # nobody else has a new record
                yield from _swaps(here, index, node, block[index + 1])
    yield from _unlocked(place, function)
    yield from _early(place, function)


def _blocks(place: Place, node: ast.AST) -> Iterator[tuple[Place, list[ast.stmt]]]:
    """Yield every list of statements in a node, with the place of it: its last step has no index."""
    for field, value in ast.iter_fields(node):
        if isinstance(value, list) and value and isinstance(value[0], ast.stmt):
            yield (*place, (field, None)), value
        if isinstance(value, list):
            for index, each in enumerate(value):
                if isinstance(each, ast.stmt | ast.ExceptHandler | ast.match_case):
                    yield from _blocks((*place, (field, index)), each)


def _expressions(place: Place, node: ast.AST) -> Iterator[tuple[Place, ast.expr]]:
    """Yield the expressions of one statement, not those of the statements within it."""
    for field, value in ast.iter_fields(node):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.AnnAssign) and field in (
            "annotation",
            "args",
            "returns",
            "decorator_list",
        ):
            continue
        for index, each in enumerate(value) if isinstance(value, list) else [(None, value)]:
            here = (*place, (field, index))
            if isinstance(each, ast.expr):
                yield here, each
                yield from _expressions(here, each)
            elif isinstance(each, ast.AST) and not isinstance(each, ast.stmt | ast.ExceptHandler | ast.match_case):
                yield from _expressions(here, each)


def _checks(place: Place, node: ast.stmt) -> Iterator[Found]:
    if isinstance(node, ast.Assert | ast.Raise):
        return  # a claim for the reader and the type checker; the words of an error
    line = node.lineno
    tests: set[int] = set()
    if isinstance(node, ast.If | ast.While) and not isinstance(node.test, ast.Constant):
        tests.add(id(node.test))
    found = list(_expressions(place, node))
    for _, each in found:
        if isinstance(each, ast.IfExp):
            tests.add(id(each.test))
        if isinstance(each, ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp):
            tests.update(id(test) for generator in each.generators for test in generator.ifs)
    operands = {id(value) for _, each in found if isinstance(each, ast.BoolOp) for value in each.values}
    negated = {id(each.operand) for _, each in found if isinstance(each, ast.UnaryOp) and isinstance(each.op, ast.Not)}
    for here, each in found:
        truth = isinstance(each, ast.Compare | ast.BoolOp) or (
            isinstance(each, ast.UnaryOp) and isinstance(each.op, ast.Not)
        )
        if id(each) in tests or (truth and id(each) not in operands and id(each) not in negated):
            yield short(each), "true", line, put(here, constant(True))
            yield short(each), "false", line, put(here, constant(False))
        if isinstance(each, ast.BoolOp):
            for index, value in enumerate(each.values):
                neutral = isinstance(each.op, ast.And)
                yield (
                    f"{short(value)} (of {short(each)})",
                    "dropped",
                    line,
                    put((*here, ("values", index)), constant(neutral)),
                )
        if isinstance(each, ast.Compare):
            for index, operator in enumerate(each.ops):
                if (other := BOUNDARIES.get(type(operator))) is not None:
                    yield short(each), "boundary", line, _boundary((*here, ("ops", index)), other)


def _boundary(place: Place, other: type[ast.cmpop]) -> Edit:
    def edit(tree: ast.Module) -> None:
        field, index = place[-1]
        assert index is not None
        getattr(at(tree, place[:-1]), field)[index] = other()

    return edit


def _deletions(place: Place, node: ast.stmt) -> Iterator[Found]:
    line = node.lineno
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call | ast.Await):
        yield short(node), "deleted", line, put(place, nothing)
    elif isinstance(node, ast.AugAssign | ast.Delete):
        if (
            isinstance(node, ast.Delete)
            or isinstance(node.target, ast.Attribute | ast.Subscript)
            or _keeps(node.target)
        ):
            yield short(node), "deleted", line, put(place, nothing)
    elif isinstance(node, ast.Assign):
        for index, target in enumerate(node.targets):
            if not _stores(target) and not _keeps(target):
                continue
            if len(node.targets) == 1:
                yield short(node), "deleted", line, put(place, nothing)
            else:
                yield f"{short(target)} (of {short(node)})", "deleted", line, _drop_target(place, index)


def _keeps(target: ast.expr) -> bool:
    if isinstance(target, ast.Tuple):
        return all(map(_keeps, target.elts))
    return isinstance(target, ast.Name) and (target.id == "old" or target.id.startswith("_"))


def _stores(target: ast.expr) -> bool:
    if isinstance(target, ast.Tuple):
        return any(map(_stores, target.elts))
    return isinstance(target, ast.Attribute | ast.Subscript)


def _drop_target(place: Place, index: int) -> Edit:
    def edit(tree: ast.Module) -> None:
        node = at(tree, place)
        assert isinstance(node, ast.Assign)
        del node.targets[index]

    return edit


def _swaps(here: Place, index: int, node: ast.stmt, following: ast.stmt) -> Iterator[Found]:
    if leaves(node) or leaves(following) or not (synchronizes(node) or synchronizes(following)):
        return
    if not (is_shared(node) and is_shared(following)):
        return  # nobody else can see the difference
    if binds(node) & (uses(following) | binds(following)):
        return  # a NameError, or another program
    place, field = here[:-1], here[-1][0]

    def edit(tree: ast.Module) -> None:
        block = getattr(at(tree, place), field)
        block[index], block[index + 1] = block[index + 1], block[index]

    yield f"{_head(node)} <-> {_head(following)}", "swapped", node.lineno, edit


def _head(node: ast.stmt) -> str:
    """Return the source of a statement, of a compound one its first line and the last call in it."""
    text = ast.unparse(node)
    lines = text.splitlines()
    return lines[0] if len(lines) == 1 else f"{lines[0]} ... {lines[-1].strip()}"


class _Unlock(ast.NodeTransformer):
    """Takes the lock out of a function."""

    def __init__(self) -> None:
        self.acquired = self.released = 0

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        name = name_called(node.value)
        if name in ACQUIRE:
            self.acquired += 1
            return ast.copy_location(ast.Pass(), node)
        if name in RELEASE:
            self.released += 1
            return ast.copy_location(ast.Pass(), node)
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if name_called(node) in LOCKING:
            self.acquired += 1
            return ast.copy_location(ast.Attribute(node.args[0], "c_cpu", ast.Load()), node)
        return self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        if isinstance(node.targets[0], ast.Attribute) and node.targets[0].attr == "busy":
            return ast.copy_location(ast.Pass(), node)
        return self.generic_visit(node)


def _unlocked(place: Place, function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[Found]:
    def edit(tree: ast.Module) -> None:
        _Unlock().visit(at(tree, place))

    trial = ast.Module([function], [])
    taker = _Unlock()
    taker.visit(ast.parse(ast.unparse(trial)))
    if taker.acquired and taker.released:
        yield "the lock", "unlocked", function.body[-1].lineno, edit


def _early(place: Place, function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[Found]:
    """Release before the last statement of a ``try`` whose ``finally`` releases, and acquire again after it."""
    for here, block in _blocks(place, function):
        for index, node in enumerate(block):
            if not isinstance(node, ast.Try) or not node.finalbody:
                continue
            last = node.finalbody[-1]
            if not (isinstance(last, ast.Expr) and name_called(last.value) == "release"):
                continue
            at_last = next((i for i in reversed(range(len(node.body))) if not leaves(node.body[i])), None)
            if at_last is None:
                continue
            spot = (*here[:-1], (str(here[-1][0]), index))
            yield _head(node.body[at_last]), "early", node.lineno, _release_early(spot, at_last)


def _release_early(place: Place, index: int) -> Edit:
    def edit(tree: ast.Module) -> None:
        node = at(tree, place)
        assert isinstance(node, ast.Try)
        again = ast.unparse(node.finalbody[-1]).replace(".release()", ".acquire()")
        node.body[index + 1 : index + 1] = _moved(ast.parse(again).body, node)
        node.body[index:index] = _moved(ast.parse("\n".join(map(ast.unparse, node.finalbody))).body, node)

    return edit


def _moved(body: list[ast.stmt], to: ast.stmt) -> list[ast.stmt]:
    for statement in body:
        for node in ast.walk(statement):
            ast.copy_location(node, to)
    return body
