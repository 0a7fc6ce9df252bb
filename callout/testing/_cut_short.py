"""A search that ended before all was done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ..explore import Certificate

_CAUSES: Final = (
    "Mostly that is because what comes before the race does not stand in `with vm.setup():`; because threads share "
    "plain data, where a lock or vm.cell() would tell which of their steps have to do with each other; or because "
    "there are more CPUs, threads or callouts than the race needs"
)


class CutShortWarning(UserWarning):
    """A search ended at one of its limits: there are schedules that were not run. It says what mostly causes that."""


def cut_short(
    name: str, certificate: Certificate, schedules: str, seconds: float | None, *, at: int
) -> CutShortWarning | None:
    """Return the warning for the search of what is called *name*, None if it was not cut off.

    Its limits were *at* schedules, which were given as *schedules*, and *seconds*.
    """
    if certificate.exhausted or certificate.strategy != "dfs":  # what is picked by chance has no end to come to
        return None
    limit = f"{at} schedules ({schedules})" if certificate.schedules >= at else f"{seconds} seconds (seconds=)"
    return CutShortWarning(f"{name}: the search was cut off by its limit, {limit}; there are schedules left. {_CAUSES}")
