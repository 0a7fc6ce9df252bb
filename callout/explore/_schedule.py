"""The string that names a schedule: all that its choices depend on, and the choices.

A choice is the number of the context that goes on, at each switch point where several could: 0 is the one that was
running, or the oldest. ``0*37.2.0*5`` is 37 times 0, a 2 and 5 times 0; zeros at the end go without saying.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby
from typing import Final, NamedTuple

from .._core.checks import check_int
from .._core.describe import shown
from .._core.errors import ArgumentTypeError, ArgumentValueError
from .._core.lifecycle import MAX_CPUS, MAX_HZ

VERSION: Final = "v4"
MAX_CHOICES: Final = 10_000_000


class Setting(NamedTuple):
    """All that a schedule's choices depend on, besides what the scenario does."""

    cpus: int
    hz: int
    short_paths: bool
    name: str  # of the scenario
    # Whether a leak is a violation, and whether results are judged: no choice depends on that, and the string does not
    # name it.
    leaks: bool = True
    results: bool = False

    def __str__(self) -> str:
        return f"{VERSION},{self.name},{self.options}"

    @property
    def options(self) -> str:
        """All but the name."""
        return f"cpus={self.cpus},hz={self.hz},paths={'short' if self.short_paths else 'long'}"

    def check(self, wanted: Setting) -> None:
        """Raise unless a schedule of this setting is one of what is explored in the setting *wanted*."""
        if self.name != wanted.name:
            raise ArgumentValueError(
                f"replay: the schedule is one of the scenario {self.name!r}, and this is {wanted.name!r}",
                call="replay",
            )
        if self != wanted:
            raise ArgumentValueError(
                f"replay: the schedule was found with {self.options}, and {self.name} is explored with "
                f"{wanted.options}; other numbers make it another program, so give a schedule of this one",
                call="replay",
            )


def name_of(scenario: object) -> str:
    """Return what a schedule calls a scenario: the name of the function, with no sign that means something here."""
    func = scenario
    while hasattr(func, "func"):  # functools.partial
        func = func.func
    name = getattr(func, "__qualname__", None) or type(func).__qualname__
    return re.sub(r"[^\w.<>-]+", "_", str(name))


# The number of choices comes last, so that nothing can be cut off.
_SCHEDULE: Final = re.compile(
    rf"{VERSION},([\w.<>-]+),cpus=([0-9]{{1,9}}),hz=([0-9]{{1,9}}),paths=(short|long)"
    r":((?:[0-9]{1,9}(?:\*[0-9]{1,9})?(?:\.[0-9]{1,9}(?:\*[0-9]{1,9})?)*)?),choices=([0-9]{1,9})",
)
_OLDER: Final = re.compile(r"v[0-3],", re.ASCII)
_NEWER: Final = re.compile(r"v[0-9]{1,4},", re.ASCII)


def write(setting: Setting, taken: Sequence[int]) -> str:
    """Return the schedule with these choices."""
    length = len(taken)
    while length and not taken[length - 1]:
        length -= 1
    runs = [(choice, len(list(same))) for choice, same in groupby(taken[:length])]
    words = [str(choice) if times == 1 else f"{choice}*{times}" for choice, times in runs]
    return f"{setting}:{'.'.join(words)},choices={length}"


def parse(schedule: object) -> tuple[Setting, list[int]]:
    """Return what a schedule says, or raise."""
    if not isinstance(schedule, str):
        raise ArgumentTypeError(
            f"replay: a schedule is the string that a Violation names, not {shown(schedule)}", call="replay"
        )
    match = _SCHEDULE.fullmatch(schedule)
    if match is None:
        short = schedule if len(schedule) <= 80 else f"{schedule[:77]}..."
        if _OLDER.match(schedule):
            raise ArgumentValueError(
                f"replay: {short!r} is a schedule of an older version, which this one, {VERSION}, cannot replay; "
                "explore the scenario again",
                call="replay",
            )
        if _NEWER.match(schedule) and not schedule.startswith(f"{VERSION},"):
            raise ArgumentValueError(
                f"replay: {short!r} is a schedule of a newer version than this one, {VERSION}", call="replay"
            )
        raise ArgumentValueError(
            f"replay: {short!r} is not a schedule; give the string that a Violation names, whole, which is like "
            f"{write(Setting(2, 1000, short_paths=True, name='teardown'), [0, 0, 1])!r}",
            call="replay",
        )
    name, cpus, hz, paths, choices, count = match.groups()
    setting = Setting(
        check_int("replay: the schedule", "cpus", int(cpus), 1, MAX_CPUS),
        check_int("replay: the schedule", "hz", int(hz), 1, MAX_HZ),
        paths == "short",
        name,
    )
    taken: list[int] = []
    for word in choices.split(".") if choices else ():
        choice, _, times = word.partition("*")
        if len(taken) + int(times or 1) > MAX_CHOICES:
            raise ArgumentValueError("replay: no schedule has so many choices", call="replay")
        taken += [int(choice)] * int(times or 1)
    if len(taken) != int(count):
        raise ArgumentValueError(
            f"replay: the schedule says that it has {int(count)} choices, and it has {len(taken)}: was a part of it "
            "cut out?",
            call="replay",
        )
    if taken and not taken[-1]:
        raise ArgumentValueError(
            "replay: a schedule does not end in choices of 0: was a part of it cut out?", call="replay"
        )
    return setting, taken
