"""What an error knows, besides its text: which call, callout, lock and CPU it is about."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

import callout
import callout_linux
from callout import (
    BusyError,
    Callout,
    CalloutError,
    ClosedError,
    LockNotHeldError,
    Mtx,
    callout_init,
    callout_init_mtx,
    callout_reset,
    callout_stop,
)
from callout._core import errors
from callout._core.refusal import Refusal
from callout.testing import VirtualSMP


def without_the_lock(c: Callout, mtx: Mtx) -> None:
    """Stop a callout without its lock."""
    callout_init_mtx(c, mtx, 0)
    callout_stop(c)


def still_pending(c: Callout, mtx: Mtx) -> None:
    """Initialise a callout that is pending."""
    callout_init(c, 1)
    callout_reset(c, 1, print, None)
    callout_init(c, 1)


MISUSE: Final[list[tuple[Callable[[Callout, Mtx], None], type[CalloutError], str, bool]]] = [
    (without_the_lock, LockNotHeldError, "callout_stop", True),
    (still_pending, BusyError, "callout_init", False),
]


@pytest.mark.parametrize(("misuse", "kind", "call", "locked"), MISUSE)
def test_an_error_knows_what_it_is_about(
    misuse: Callable[[Callout, Mtx], None], kind: type[CalloutError], call: str, locked: bool
) -> None:
    """Its attributes are the call, the callout, the callout's lock if that is the matter, and the number of the CPU."""
    c = Callout()
    with VirtualSMP(1):
        mtx = Mtx("m")
        with pytest.raises(kind) as caught:
            misuse(c, mtx)
    error = caught.value

    assert (error.call, error.callout, error.cpu) == (call, c, 0)
    assert error.lock is (mtx if locked else None)
    assert str(error).startswith(f"{call}: ")


PACKAGES: Final = [Path(callout.__file__).parent, Path(callout_linux.__file__).parent]
LIBRARY: Final = [
    path
    for package in PACKAGES
    for path in sorted(package.rglob("*.py"))
    if not {"conformance", "demo"} & {*path.relative_to(package).parts}  # commands, whose errors are lines on stderr
]


def begins_with_its_call(text: ast.expr) -> bool:
    """Whether an error's text begins with the name of a call and a colon."""
    match text:
        case ast.Constant(value=str(words)):
            return re.match(r"\w+: ", words) is not None
        case ast.JoinedStr(values=[ast.FormattedValue(value=ast.Name("call")), ast.Constant(value=str(words)), *_]):
            return words.startswith(": ")
        case ast.JoinedStr(values=[ast.Constant(value=str(words)), *_]):
            return re.match(r"\w+: ", words) is not None
        case _:
            return False


def errors_raised(path: Path) -> Iterator[ast.Call]:
    """Yield the package's own exceptions that a module raises."""
    ours = {name for name, each in vars(errors).items() if isinstance(each, type) and issubclass(each, CalloutError)}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and ast.unparse(node.exc.func) in ours:
            yield node.exc


def test_an_error_that_names_its_call_has_it() -> None:
    """Wherever the library raises an error whose text begins with a call, ``call`` is given, too."""
    raised = [(path, error) for path in LIBRARY for error in errors_raised(path)]
    naming = [(path, error) for path, error in raised if error.args and begins_with_its_call(error.args[0])]

    assert len(naming) > len(raised) / 2  # else this looks at nothing
    assert [
        f"{path.name}:{error.lineno}" for path, error in naming if "call" not in {each.arg for each in error.keywords}
    ] == []


def test_a_refusal_is_in_the_name_of_the_call_that_it_is_told() -> None:
    """Where the call is known its name is given, and the stack is not asked: a wait may be awaited anywhere."""
    refusal = Refusal(ClosedError, "closed")
    with pytest.raises(ClosedError, match=r"^callout_drain: closed$") as caught:
        refusal.refuse("callout_drain")

    assert caught.value.call == "callout_drain"
