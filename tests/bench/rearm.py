"""The cost of pushing a pending callout out, against asyncio's cancel and call_later, in one run, interleaved.

    python tests/bench/rearm.py --pending 100000

Prints nanoseconds per call, the median over the rounds, and the ratio round by round.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import time

import trio

from callout import Callout, Mtx, callout_init, callout_init_mtx, callout_reset, callout_stop, open_callouts

CALLS = 20_000


def ignore(arg: object) -> None:
    """Do nothing."""


class Asyncio:
    """What an asyncio application does to re-arm a timer."""

    def __init__(self, pending: int) -> None:
        self.loop = asyncio.new_event_loop()
        self.handles = [self.loop.call_later(3600 + i * 1e-3, ignore, None) for i in range(pending)]

    def rearm(self) -> float:
        """Re-arm timers in turn; return ns per call."""
        loop, handles = self.loop, self.handles
        call_later = loop.call_later
        begin = time.perf_counter_ns()
        for i in range(CALLS):
            handles[i].cancel()
            handles[i] = call_later(3700, ignore, None)
        spent = time.perf_counter_ns() - begin
        # The loop throws cancelled timers out when there are many; let it, so that it does not swell.
        loop.call_soon(loop.stop)
        loop.run_forever()
        return spent / CALLS


class Callouts:
    """The same with callouts, plain or with a mutex."""

    def __init__(self, pending: int, mtx: Mtx | None) -> None:
        self.callouts = [Callout() for _ in range(pending)]
        for i, c in enumerate(self.callouts):
            if mtx is None:
                callout_init(c, 1)
            else:
                callout_init_mtx(c, mtx)
            callout_reset(c, 3_600_000 + i, ignore, None)

    def rearm(self) -> float:
        """Push callouts out in turn; return ns per call."""
        callouts = self.callouts[:CALLS]
        begin = time.perf_counter_ns()
        for c in callouts:
            callout_reset(c, 3_700_000, ignore, None)
        return (time.perf_counter_ns() - begin) / CALLS

    def stop_and_arm(self) -> float:
        """Stop and arm callouts in turn; return ns per pair."""
        callouts = self.callouts[:CALLS]
        begin = time.perf_counter_ns()
        for c in callouts:
            callout_stop(c)
            callout_reset(c, 3_700_000, ignore, None)
        return (time.perf_counter_ns() - begin) / CALLS


async def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pending", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    async with open_callouts(checking=False):
        theirs = Asyncio(args.pending)
        plain = Callouts(args.pending, None)
        locked = Callouts(args.pending, Mtx("bench"))
        gc.freeze()
        rows: dict[str, list[float]] = {}
        for _ in range(args.rounds):
            rows.setdefault("asyncio cancel + call_later", []).append(theirs.rearm())
            rows.setdefault("callout_reset, pushed out", []).append(plain.rearm())
            rows.setdefault("callout_reset, pushed out, with a mutex", []).append(locked.rearm())
            rows.setdefault("callout_stop + callout_reset", []).append(plain.stop_and_arm())
        base = rows["asyncio cancel + call_later"]
        print(f"{args.pending} pending, {args.rounds} rounds of {CALLS} calls; ns per call")
        for name, figures in rows.items():
            ratio = statistics.median(mine / other for mine, other in zip(figures, base, strict=True))
            print(f"{name:42} median {statistics.median(figures):8.0f}   min {min(figures):8.0f}   ratio {ratio:5.2f}")
        theirs.loop.close()


if __name__ == "__main__":
    trio.run(main)
