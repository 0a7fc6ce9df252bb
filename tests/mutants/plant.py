"""Putting changed code into the functions of the engine, in this process.

A function stays the same object, so a module that has imported it by name has it changed, too.
"""

from __future__ import annotations

import ast
import gc
from collections import defaultdict
from collections.abc import Iterator
from importlib import import_module
from mmap import mmap
from types import CodeType, FunctionType
from typing import Final

from callout._core import guard
from tests.mutants import operators

HITS: Final = "__mutants_hits__"  # the global of each module in which its statements mark that they were executed

Key = tuple[str, str, int]


def key_of(code: CodeType) -> Key:
    """Return what tells a function from others: the file, the qualified name, the first line."""
    return code.co_filename, code.co_qualname, code.co_firstlineno


def engine_functions() -> dict[Key, list[FunctionType]]:
    """Return every function object of the core and the locks that exists."""
    files = set()
    for name in operators.modules():
        import_module(name)
        files.add(str(operators.path_of(name)))
    found: dict[Key, list[FunctionType]] = defaultdict(list)
    for thing in gc.get_objects():
        if isinstance(thing, FunctionType) and thing.__code__.co_filename in files:
            found[key_of(thing.__code__)].append(thing)
    return found


def codes(code: CodeType) -> Iterator[CodeType]:
    """Yield a code object and those within it."""
    yield code
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from codes(const)


def compiled(module: str, tree: ast.Module) -> CodeType:
    """Compile the tree of a module as if it were the module's source."""
    return compile(tree, str(operators.path_of(module)), "exec", dont_inherit=True)


def plant(code: CodeType, into: dict[Key, list[FunctionType]]) -> int:
    """Give every function the code that it has in *code*, that of a module; return how many have changed."""
    changed = 0
    for each in codes(code):
        for function in into.get(key_of(each), ()):
            if function.__code__ == each:
                continue
            function.__code__ = each
            changed += 1
            # What keeps KeyboardInterrupt out knows the code object.
            for protect, expose in guard._KEEPERS:
                if function in guard._PROTECTED:
                    protect(function)
                if function in guard._EXPOSED:
                    expose(function)
    return changed


# -- what executes what ------------------------------------------------------------------------------------------------


class _Marks(ast.NodeTransformer):
    """Puts before each statement of a function the mark that it was executed."""

    def __init__(self, offset: int) -> None:
        self.offset = offset
        self.last = 0

    def block(self, body: list[ast.stmt]) -> list[ast.stmt]:
        out: list[ast.stmt] = []
        for node in body:
            if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
                mark = ast.parse(f"{HITS}[{self.offset + node.lineno}] = 1").body[0]
                for each in ast.walk(mark):
                    ast.copy_location(each, node)
                out.append(mark)
            self.inner(node)
            out.append(node)
        return out

    def inner(self, node: ast.AST) -> None:
        for field, value in ast.iter_fields(node):
            if isinstance(value, list) and value and isinstance(value[0], ast.stmt):
                setattr(node, field, self.block(value))
            elif isinstance(value, list):
                for each in value:
                    if isinstance(each, ast.ExceptHandler | ast.match_case):
                        self.inner(each)


def offsets() -> dict[str, int]:
    """Return for each module where its lines begin in the row of marks; "" is the length of that."""
    out = {}
    at = 0
    for name in operators.modules():
        out[name] = at
        at += len(operators.path_of(name).read_text(encoding="utf-8").splitlines()) + 1
    out[""] = at
    return out


def plant_marks() -> mmap:
    """Have every statement of the engine mark in the result that it was executed, in forked children, too."""
    places = offsets()
    hits = mmap(-1, places[""])
    into = engine_functions()
    for name in operators.modules():
        vars(import_module(name))[HITS] = hits
        tree = operators.parse(name)
        for _, _, function in operators.functions(tree):
            _Marks(places[name]).inner(function)
        plant(compiled(name, ast.fix_missing_locations(tree)), into)
    return hits
