"""The rounds: a process for each peer and size, one after the other, and each round begins with another peer."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from .._again import command, environment
from ._peer import PEERS


@dataclass(frozen=True)
class Plan:
    """What is to be measured."""

    peers: tuple[str, ...]
    sizes: tuple[int, ...]
    workloads: tuple[str, ...]
    rounds: int
    calls: int

    def steps(self) -> Iterator[tuple[int, int, str]]:
        """Yield round, size and peer of each process, in order."""
        for turn in range(self.rounds):
            first = turn % len(self.peers)
            for size in self.sizes:
                for peer in (*self.peers[first:], *self.peers[:first]):
                    yield turn, size, peer


@dataclass(frozen=True)
class Sample:
    """What one process has measured, or why it did not."""

    turn: int
    size: int
    peer: str
    figures: Mapping[str, float] = field(default_factory=dict)
    error: str = ""
    spared: bool = False  # the size is more than this peer is asked for


def sample(plan: Plan, turn: int, size: int, peer: str) -> Sample:
    """Run one process."""
    entry = next(entry for entry in PEERS if entry.name == peer)
    if size > entry.most:
        return Sample(turn, size, peer, error=f"not asked for more than {entry.most:,} timers", spared=True)
    env = environment(CALLOUT_PURE="1") if entry.pure else environment()
    run = command(f"{__package__}._one", peer, str(size), str(plan.calls), *plan.workloads)
    done = subprocess.run(run, capture_output=True, text=True, check=False, env=env)  # noqa: S603 - this very program
    if done.returncode:
        return Sample(turn, size, peer, error=_last_line(done.stderr) or f"ended with status {done.returncode}")
    return Sample(turn, size, peer, json.loads(_last_line(done.stdout)))


def _last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "")
