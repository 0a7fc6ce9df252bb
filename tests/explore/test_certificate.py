"""What a certificate says: what was run, what has run in it, and what it does not cover."""

from __future__ import annotations

from typing import Final

import pytest

from callout import Callout, Mtx, callout_init_mtx, callout_reset, callout_stop
from callout.explore import Certificate, explore
from callout.testing import VirtualSMP

ALWAYS: Final = ("switches elsewhere than at switch points", "weak memory")


def expired(arg: None) -> None:
    """Be a callback."""


def stopped(vm: VirtualSMP) -> int:
    """Arm a callout and stop it."""
    mutex, c = Mtx("m"), Callout()
    callout_init_mtx(c, mutex)
    with mutex:
        callout_reset(c, 1, expired, None)
    with mutex:
        return callout_stop(c)


def test_it_says_in_how_many_schedules_each_callback_has_run() -> None:
    """A callout that is stopped in time runs in none of those."""
    certificate = explore(stopped, cpus=1, bound=2)

    assert list(certificate.ran) == ["expired"]
    assert 0 < certificate.ran["expired"] < certificate.schedules
    assert f"; ran: expired in {certificate.ran['expired']}; " in str(certificate)


def test_a_callback_that_never_runs_is_not_there() -> None:
    """A scenario in which the callout cannot expire has exercised no callback."""

    def scenario(vm: VirtualSMP) -> None:
        with vm.setup():
            stopped(vm)

    certificate = explore(scenario, cpus=1)
    assert certificate.ran == {}
    assert "ran:" not in str(certificate)


def test_it_is_the_same_for_samples() -> None:
    """Schedules by chance count as well."""
    assert set(explore(stopped, cpus=1, strategy="random", schedules=50).ran) == {"expired"}


@pytest.mark.parametrize(
    ("certificate", "says"),
    [
        (Certificate(5, 9, bound=None, exhausted=True), ALWAYS),
        (Certificate(5, 9, bound=1, exhausted=True), ("more than 1 preemption", *ALWAYS)),
        (
            Certificate(5, 9, bound=3, exhausted=False),
            ("the schedules that were not run", "more than 3 preemptions", *ALWAYS),
        ),
        (
            Certificate(5, 9, bound=None, exhausted=False, strategy="pct", seed=0),
            ("the schedules that were not run", *ALWAYS),
        ),
    ],
)
def test_it_says_what_it_does_not_cover(certificate: Certificate, says: tuple[str, ...]) -> None:
    """A bound, a limit or chance leave something out; weak memory is never covered."""
    assert certificate.not_covered == says
    assert str(certificate).endswith(f"; not covered: {', '.join(says)}")


def test_one_is_no_plural() -> None:
    """As in any message."""
    assert str(Certificate(1, 1, bound=1, exhausted=True, reduced=False, steps=1)).startswith(
        "nothing was found in 1 schedule (every schedule with at most 1 preemption), 1 switch point, 1 in the longest, "
    )
