"""Running the user's code. Never compiled: that Ctrl-C may come in here is a mark on its frame."""

from __future__ import annotations

from .checks import refuse_unrun
from .guard import exposed
from .state import Func


@exposed
def call(func: Func, arg: object) -> None:
    """Run the user's code. What it returns must not be something that still wants to be run."""
    result = func(arg)
    if result is not None:
        refuse_unrun(func, result)
