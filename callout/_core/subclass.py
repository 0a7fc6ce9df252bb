"""What a subclass may not have: something of its own under the name of one of the engine's fields.

The compiled core reads and writes the structure, whatever a subclass has under that name; the rest of the engine would
find what the subclass has.
"""

from __future__ import annotations

from collections.abc import Collection

from .errors import ArgumentTypeError


def keep_fields(cls: type, base: type, fields: Collection[str]) -> None:
    """Raise if *cls*, or a class that it inherits from before *base*, has something under a name of *fields*."""
    above = cls.__mro__[: cls.__mro__.index(base)]
    taken = sorted({name for each in above for name in vars(each)}.intersection(fields))
    if taken:
        raise ArgumentTypeError(
            f"{cls.__qualname__}: {taken[0]!r} is the name of a field of every {base.__name__}, and belongs to the "
            f"engine: choose another; so do {', '.join(sorted({*fields} - {taken[0]}))}"
        )
