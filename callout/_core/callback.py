"""Running the user's code. Never compiled: that Ctrl-C may come in here is a mark on its frame."""

from __future__ import annotations

from .args import Args
from .checks import refuse_unrun
from .guard import exposed
from .periodic import Grid
from .state import Func


@exposed
def call(func: Func, arg: object) -> None:
    """Run the user's code. What it returns must not be something that still wants to be run."""
    kind = type(arg)
    if kind is Args:
        result = func(*arg)  # type: ignore[misc]  # it is a tuple
    elif kind is Grid:
        arg.advance()  # type: ignore[attr-defined]  # it has it
        result = func(*arg)  # type: ignore[misc]  # as above
    else:
        result = func(arg)
    if result is not None:
        refuse_unrun(func, result)
