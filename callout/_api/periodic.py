"""A callout that runs again and again: what ``system.every()`` returns."""

from __future__ import annotations

from .._core.checks import machine_of
from .._core.errors import ArgumentTypeError, ArgumentValueError
from .._core.methods import in_ns
from .._core.periodic import Times
from .._core.results import ARMED, ResetResult
from .._core.seconds import Seconds, from_ns, to_time
from .._core.short import arm_at
from .callout import Callout


class Periodic(Callout):
    """A callout that runs on a fixed grid of times: at its start plus any number of periods.

    Times that have passed before it could run are skipped, and counted: its runs neither overlap nor bunch up, and do
    not drift. ``stop()``, also in its own callback, ends the repetition, as drain and close do. An exception of its
    callback leaves through the block; with ``on_error`` the next period comes all the same. It keeps the function and
    arguments that ``every()`` was given: an arming with others is an ``ArgumentValueError``.
    """

    __slots__ = ("_times",)

    _times: Times

    def __init__(self) -> None:
        """Raise: ``system.every()`` makes one."""
        raise ArgumentTypeError("Periodic: make it with system.every(seconds, fn, *args)", call="Periodic")

    @property
    def period(self) -> float:
        """Seconds from one time of the grid to the next."""
        return from_ns(self._times.period)

    @property
    def missed(self) -> int:
        """How many periods were skipped so far."""
        return self._times.missed

    def reset(self, seconds: Seconds, /, *given: object) -> ResetResult:  # type: ignore[override]  # it takes less
        """Move the grid: the next run is *seconds* from now, and the others follow it. Never blocks.

        Also begins the repetition anew after ``stop()``. Returns and raises as ``Callout.reset()``.

        Raises:
            ArgumentValueError: a function is given.
        """
        self._refuse("reset", given)
        machine = machine_of(self, "reset")
        return self._move("reset", machine.platform.now() + in_ns("reset", seconds))

    def reset_at(self, deadline: float, /, *given: object) -> ResetResult:  # type: ignore[override]  # as above
        """Move the grid: the next run is at *deadline*, a time of ``current_time()``. Otherwise as ``reset()``."""
        self._refuse("reset_at", given)
        return self._move("reset_at", to_time("reset_at", machine_of(self, "reset_at"), deadline))

    def _refuse(self, call: str, given: tuple[object, ...]) -> None:
        if given:
            raise ArgumentValueError(
                f"{call}: {self!r} is periodic, and keeps the function and arguments that every() was given; "
                "make another",
                call=call,
                callout=self,
            )

    def _move(self, call: str, when: int) -> ResetResult:
        # First the grid: a run that begins between the two is armed for a time of the new one, which this replaces.
        self._times.anchor = when
        return ARMED[arm_at(call, self, when, None, None)]


__all__ = ["Periodic"]
