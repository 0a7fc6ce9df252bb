"""Precision on the real clock: wake-ups are shared inside a callout's window, and only if that was asked for."""

from __future__ import annotations

import pytest

from callout import C_ABSOLUTE, SBT_1MS, Callout, callout_init, callout_reset_sbt, open_callouts, sbinuptime

from .loops import Tell

# A window of 2**23 nanoseconds, 8.4 ms, and a moment that many windows of that length have in common.
WINDOW_NS = (1 << 23) - 1


def sbt(ns: int) -> int:
    """Return nanoseconds as sbintime; back in nanoseconds, rounded up, they are the same."""
    return (ns << 32) // 1_000_000_000


async def order_of(window: int) -> list[object]:
    """Arm "late" for two milliseconds after "early", but before it; return the order in which they run."""
    ran: list[object] = []
    async with open_callouts():
        tell = Tell()
        now = sbinuptime() * 1_000_000_000 >> 32
        round_one = ((now >> 24) + 2) << 24
        for name, ns in (("late", round_one - 2_000_000), ("early", round_one - 4_000_000)):
            c = Callout()
            callout_init(c, 1)
            callout_reset_sbt(c, sbt(ns), window and sbt(window) + 1, ran.append, name, C_ABSOLUTE)
        last = Callout()
        callout_init(last, 1)
        callout_reset_sbt(last, sbt(round_one + WINDOW_NS) + 20 * SBT_1MS, 0, tell, None, C_ABSOLUTE)
        await tell.ran.wait()
    return ran


@pytest.mark.trio
async def test_without_precision_each_has_its_own_time() -> None:
    """With precision 0, which is the default, the callout that is due first runs first."""
    assert await order_of(0) == ["early", "late"]


@pytest.mark.trio
async def test_windows_that_overlap_share_a_time() -> None:
    """Two callouts whose windows have a round moment in common are due then: the first that was armed runs first."""
    assert await order_of(WINDOW_NS) == ["late", "early"]


@pytest.mark.trio
async def test_a_window_is_kept() -> None:
    """A callout with a precision does not run before its window begins, whatever moment in it is chosen."""
    async with open_callouts(alloweddeviation=50):
        late: list[int] = []
        for milliseconds in (1, 2, 3, 5, 8):
            for precision in (0, SBT_1MS // 3, SBT_1MS, 4 * SBT_1MS):
                tell = Tell()
                c = Callout()
                callout_init(c, 1)
                asked = sbinuptime() + milliseconds * SBT_1MS

                def look(arg: int, tell: Tell = tell) -> None:
                    late.append(sbinuptime() - arg)
                    tell(arg)

                callout_reset_sbt(c, milliseconds * SBT_1MS, precision, look, asked)
                await tell.ran.wait()

    assert len(late) == 20
    assert min(late) >= 0
