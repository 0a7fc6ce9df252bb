"""What the packages export: all of callout(9), documented, and nothing by accident."""

from __future__ import annotations

import ast
import importlib
import importlib.resources
import inspect
import os
import pkgutil
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import Final

import pytest

import callout
import callout_linux

ARMING: Final = ("", "_on", "_curcpu", "_sbt", "_sbt_on", "_sbt_curcpu")
CALLOUT_9: Final = (
    "callout_init",
    "callout_init_mtx",
    "callout_init_rw",
    "callout_init_rm",
    *(f"callout_reset{how}" for how in ARMING),
    *(f"callout_schedule{how}" for how in ARMING),
    "callout_stop",
    "callout_drain",
    "callout_drain_async",
    "callout_pending",
    "callout_active",
    "callout_deactivate",
    "callout_when",
    "callout_barrier",
    "callout_terminate",
    "CALLOUT_RETURNUNLOCKED",
    "CALLOUT_SHAREDLOCK",
    "CALLOUT_TRYLOCK",
    "C_ABSOLUTE",
    "C_DIRECT_EXEC",
    "C_HARDCLOCK",
    "C_PREL",
    "C_PRECALC",
    "SBT_1M",
    "SBT_1S",
    "SBT_1MS",
    "SBT_1US",
    "SBT_1NS",
    "SBT_MAX",
)


def public_modules() -> list[str]:
    """Return the name of every module whose path has no underscore in it."""
    packages = (callout, callout_linux)
    names = [package.__name__ for package in packages]
    for package in packages:
        names += [info.name for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
    return [name for name in names if not any(part.startswith("_") for part in name.split("."))]


def parse(module: ModuleType) -> ast.Module:
    """Return the syntax tree of *module*."""
    return ast.parse(inspect.getsource(module))


def names_of(module: ModuleType) -> set[str]:
    """Return the public names that *module* makes its own: what it defines, and in a package what it re-exports."""
    names: set[str] = set()
    todo: list[ast.stmt] = list(parse(module).body)
    while todo:
        node = todo.pop()
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.Assign(value=ast.Call(func=ast.Name(id="TypeVar" | "TypeVarTuple" | "ParamSpec"))):
                pass  # a name for the type checker only
            case ast.Assign(targets=targets):
                stored = (each for target in targets for each in ast.walk(target) if isinstance(each, ast.Name))
                names |= {each.id for each in stored if isinstance(each.ctx, ast.Store)}
            case ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
            case ast.ImportFrom(module=origin, level=level) if hasattr(module, "__path__"):
                if level or (origin or "").split(".")[0] == module.__name__.split(".")[0]:
                    names |= {alias.asname or alias.name for alias in node.names}
            case ast.If(body=body, orelse=orelse) if ast.unparse(node.test) != "TYPE_CHECKING":
                todo += body + orelse
            case ast.Try(body=body, orelse=orelse, handlers=handlers):
                todo += body + orelse + [each for handler in handlers for each in handler.body]
            case _:
                pass
    return {name for name in names if not name.startswith("_")}


@pytest.mark.skipif("NOX_CURRENT_SESSION" not in os.environ, reason="outside nox the tests may run on the tree")
def test_the_installed_package_is_tested() -> None:
    """Under nox, both packages come from the wheel, not from the tree around this file."""
    site_packages = Path(sysconfig.get_path("purelib"))

    for package in (callout, callout_linux):
        assert Path(package.__path__[0]).parent == site_packages


@pytest.mark.parametrize("package", ["callout", "callout_linux"])
def test_the_packages_are_typed(package: str) -> None:
    """Each installed package has its py.typed, or users' type checkers would ignore the annotations."""
    assert (importlib.resources.files(package) / "py.typed").is_file()


def test_callout_only_re_exports() -> None:
    """callout/__init__.py has a docstring, imports from its own modules and ``__all__``, and no other statement."""
    docstring, *rest = parse(callout).body

    assert isinstance(docstring, ast.Expr)
    for node in rest:
        match node:
            case ast.ImportFrom(module="__future__") | ast.ImportFrom(level=1):
                pass
            case ast.Assign(targets=[ast.Name(id="__all__")]):
                pass
            case _:
                pytest.fail(f"callout/__init__.py, line {node.lineno}: {ast.unparse(node)}")


@pytest.mark.parametrize("name", public_modules())
def test_all_is_what_a_module_makes_its_own(name: str) -> None:
    """``__all__`` of a public module names once each what the module defines or, in a package, re-exports."""
    module = importlib.import_module(name)

    assert sorted(module.__all__) == sorted(names_of(module))


@pytest.mark.parametrize("name", callout.__all__)
def test_each_public_name_is_there_and_documented(name: str) -> None:
    """Every name in ``callout.__all__`` exists, and every function and class of them has a docstring of its own."""
    thing = getattr(callout, name)

    if inspect.isroutine(thing) or inspect.isclass(thing):
        # A dataclass without a docstring gets its signature for one.
        assert not (thing.__doc__ or f"{name}(").startswith(f"{name}(")


@pytest.mark.parametrize("name", CALLOUT_9)
def test_callout_9_is_complete(name: str) -> None:
    """Every function and constant of callout(9) has its place in ``callout``."""
    assert name in callout.__all__
