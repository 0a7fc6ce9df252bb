"""The three rules: on which CPU, and in which context, a callout of each kind runs. As data.

1. A direct callback runs in the clock interrupt, so its lock must be a spin mutex; without a lock it runs on CPU 0.
2. A callback under Giant runs on CPU 0.
3. A callback under a shared lock runs on CPU 0: such a lock does not exclude its other holders.

CPU 0 is the application's own loop, so what is not thread-safe has a home there.

Source: the kern_timeout.c rewrite of December 2014 (r277213). FreeBSD 13 has none of the three.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

from .errors import LockClassError


class LockClass(enum.Enum):
    """What kind of lock a callout was initialised with."""

    NONE = "no lock, mpsafe"
    MUTEX = "a default mutex"
    SPIN = "a spin mutex"
    GIANT = "Giant (mpsafe false)"
    EXCLUSIVE = "an rwlock or rmlock, exclusive"
    SHARED = "an rwlock or rmlock, CALLOUT_SHAREDLOCK"
    SLEEPABLE = "a lock that can be held across an await"


class Place(enum.Enum):
    """Where a callout runs."""

    ASSIGNED = "the CPU it is assigned to"
    CPU0 = "CPU 0 only"
    ERROR = "error"
    ERROR_AT_INIT = "error at initialisation"


# lock class -> (run by softclock, run directly)
RULES: Final[Mapping[LockClass, tuple[Place, Place]]] = {
    LockClass.NONE: (Place.ASSIGNED, Place.CPU0),
    LockClass.MUTEX: (Place.ASSIGNED, Place.ERROR),
    LockClass.SPIN: (Place.ASSIGNED, Place.ASSIGNED),
    LockClass.GIANT: (Place.CPU0, Place.ERROR),
    LockClass.EXCLUSIVE: (Place.ASSIGNED, Place.ERROR),
    LockClass.SHARED: (Place.CPU0, Place.ERROR),
    LockClass.SLEEPABLE: (Place.ERROR_AT_INIT, Place.ERROR_AT_INIT),
}


def place(call: str, lock_class: LockClass, direct: bool) -> Place:
    """Return where such a callout runs; raise if it may not."""
    where = RULES[lock_class][direct]
    if where is Place.ERROR_AT_INIT:
        raise LockClassError(
            f"{call}: a callout's lock may not be {lock_class.value}; "
            "use a Mtx, an RwLock or an RmLock that is not sleepable",
            call=call,
        )
    if where is Place.ERROR:
        raise LockClassError(
            f"{call}: C_DIRECT_EXEC needs a callout with a spin mutex or without a lock, "
            f"this one has {lock_class.value}",
            call=call,
        )
    return where


def table() -> str:
    """Return the rules as a Markdown table, for the manual."""
    rows = ["| callout is initialised with | softclock runs it on | with `C_DIRECT_EXEC` |", "| --- | --- | --- |"]
    rows += [f"| {kind.value} | {plain.value} | {direct.value} |" for kind, (plain, direct) in RULES.items()]
    return "\n".join(rows)
