"""The callouts that a system has to do with now: what is scheduled, and what runs.

Under the lock of a CPU only references and numbers are collected. Names, owners of locks and the like are found out
when it was released: another thread waits for no text. The references die with the call, and what is returned has
none: it keeps no callout alive, nor what it would be called with. Arguments are never shown, for they may be secrets.

The callouts of a bucket of the wheel are due after it begins. So the first few are found without a look at the rest.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from .._locks.lock import Lock
from .checks import check_int
from .cpu import BARRIER, STARTED, Cpu, Run
from .cpulock import acquire
from .describe import name_of
from .guard import protected
from .periodic import Grid
from .seconds import from_ns
from .state import MOVING, PENDING, QUEUED, Func, Ring
from .wheel import callouts_of

if TYPE_CHECKING:
    from .._api.callout import Callout
    from .machine import Machine

_MOST: Final = 2**62  # more than fit into memory

State = Literal["pending", "queued", "waiting", "running", "draining"]


@dataclass(frozen=True, slots=True)
class CalloutInfo:
    """One callout that is scheduled or runs, as it was at one time. It keeps nothing alive."""

    serial: int
    """Its number in this system: the same in every snapshot and trace, and never used again."""
    name: str | None
    """What its maker called it."""
    function: str
    """What it calls."""
    cpu: int
    """Where it runs."""
    lock: str | None
    """The name of its lock."""
    lock_owner: str | None
    """What holds that lock."""
    deadline: float
    """When it is due, in seconds of ``system.current_time()``; of one that runs and is not scheduled, when it was."""
    due_in: float
    """The seconds until then: negative, if it is late."""
    period: float | None
    """The seconds of its period, if it is periodic."""
    armed_at: str | None
    """File, line and function where it was armed last: in checking mode."""
    state: frozenset[State]
    """``pending``: it is scheduled. ``queued``: it is due, too. ``waiting``: softclock is at its lock.
    ``running``: its callback runs. ``draining``: a call waits for the end of that."""

    def to_dict(self) -> dict[str, object]:
        """Return it as a dict, for JSON: the state is a sorted list."""
        return asdict(self) | {"state": sorted(self.state)}


class _Found(NamedTuple):
    """What is collected under the lock."""

    when: int
    c: Callout
    serial: int
    cpu: int
    func: Func | None
    lock: Lock | None
    period: int | None
    state: tuple[State, ...]


def callouts(call: str, machine: Machine, limit: int | None = None) -> list[CalloutInfo]:
    """Return what *machine* has scheduled and what runs, by deadline; *limit*: the first so many."""
    most = _MOST if limit is None else check_int(call, "limit", limit, 0, _MOST)
    found: list[_Found] = []
    for cpu in machine.cpus:
        found += _collect(call, cpu, most)
    found.sort(key=lambda each: (each.when, each.serial))
    now = machine.platform.now()
    return [_info(machine, each, now) for each in found[:most]]


@protected
def _collect(call: str, cpu: Cpu, most: int) -> list[_Found]:
    """Return the first *most* callouts of *cpu*, and perhaps others."""
    acquire(cpu, call)
    try:
        runs = [lane.run for lane in cpu.lanes if lane.run is not None]
        found = [_found(cpu, run.callout, run.due) for run in runs if run.callout.c_cpu is cpu and not run.callout.next]
        for lane in cpu.lanes:
            found += [_found(cpu, c, c.time) for c in callouts_of(lane.queue)]
        found += [_found(cpu, c, c.time) for c in _first(cpu, most)]
    finally:
        cpu.busy = False
        cpu.lock.release()
    return found


def _first(cpu: Cpu, most: int) -> list[Callout]:
    """Return what has to be looked at to find the first *most* callouts in the wheel."""
    rings: list[tuple[int, Ring]] = [(0, cpu.wheel._open)]
    rings += [(bucket.begins, bucket) for bucket in sorted(cpu.wheel.buckets(), key=lambda bucket: bucket.begins)]
    out: list[Callout] = []
    for begins, ring in rings:
        if len(out) >= most and sum(c.time < begins for c in out) >= most:
            break
        out += callouts_of(ring)
    return out


def _found(cpu: Cpu, c: Callout, when: int) -> _Found:
    state, run = c.state, c.run
    words: list[State] = []
    if state & PENDING:
        words.append("pending")
    if state & QUEUED:
        words.append("queued")
    if run is not None:
        words.append("running" if run.state == STARTED else "waiting")
        if is_awaited(run):
            words.append("draining")
        if state & MOVING and run.move is not None:
            when = run.move.time
    func = c.func if run is None or state & PENDING else run.func
    period = c.arg.times.period if type(c.arg) is Grid else None
    return _Found(when, c, cpu.machine.serials.of(c), cpu.id, func, c.lock, period, tuple(words))


def is_awaited(run: Run) -> bool:
    """Return whether a call waits for the end of *run*: a drain, not a barrier, which stops nothing."""
    return any(ticket.asks != BARRIER for ticket in run.tickets or ())


def _info(machine: Machine, found: _Found, now: int) -> CalloutInfo:
    c, lock = found.c, found.lock
    extra = machine.extras.get(c)
    return CalloutInfo(
        serial=found.serial,
        name=None if extra is None else extra.name,
        function=name_of(found.func),
        cpu=found.cpu,
        lock=None if lock is None else lock.name,
        lock_owner=None if lock is None else owner_of(lock),
        deadline=from_ns(found.when + machine.epoch),
        due_in=from_ns(found.when - now),
        period=None if found.period is None else from_ns(found.period),
        armed_at=None if machine.origins is None else machine.origins.get(c),
        state=frozenset(found.state),
    )


def owner_of(lock: Lock) -> str | None:
    """Return what holds *lock*; None if nothing does, or that cannot be found out now."""
    try:
        return lock._holder() or None
    except Exception:  # another thread is at it, or it was freed
        return None


__all__ = ["CalloutInfo", "callouts"]
