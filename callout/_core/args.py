"""How a callback gets its arguments: C has one, Python any number.

A callout keeps a function and *one* argument, as in C. Of any other number of arguments that one is an ``Args``, which
``callback.call()`` spreads. So the C names pay nothing for the others, and the record is the same.
"""

from __future__ import annotations

from typing import Any, Final


class Args(tuple[Any, ...]):  # Any: as the argument of a callback, which the API checks
    """Arguments to be spread."""

    __slots__ = ()


NO_ARGS: Final = Args()


def packed(args: tuple[object, ...]) -> object:
    """Return the one argument that stands for *args*."""
    if not args:
        return NO_ARGS
    if len(args) == 1 and not isinstance(args[0], Args):
        return args[0]
    return Args(args)
