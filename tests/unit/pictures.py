"""Makes the pictures in docs/pictures from the engine: from what it does under every schedule, and from its tables.

``python tests/unit/pictures.py`` writes them, test_pictures.py compares. Only where things stand on the paper is said
here; an arrow that the engine never goes, or one that is missing, is an error.

- ``run.svg``: the life of a run, with what ``callout_stop()`` returns in each state;
- ``wheel.svg``: where a wheel files callouts;
- ``rules.svg``: the three rules;
- ``stop-and-free.svg``: why a stop is no drain.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple
from xml.sax.saxutils import escape

from callout import Callout, Mtx, callout_init, callout_init_mtx, callout_reset, callout_stop, mtx_lock, mtx_unlock
from callout._core import cpu, state
from callout._core.levels import FAN, LEVELS
from callout._core.rules import RULES, Place
from callout._core.wheel import Bucket, Wheel
from callout.explore import Violation, explore
from callout.explore._svg import svg
from callout.museum import EXHIBITS
from callout.testing import VirtualSMP

ROOT: Final = Path(__file__).parents[2]
PICTURES: Final = ROOT / "docs" / "pictures"

INK: Final = "#1f2328"
FAINT: Final = "#57606a"
LINE: Final = "#8c959f"
GREEN: Final = ("#dafbe1", "#1a7f37")  # inside, border
YELLOW: Final = ("#fff8c5", "#9a6700")
RED: Final = ("#ffebe9", "#cf222e")
GREY: Final = ("#f6f8fa", "#8c959f")
BLUE: Final = ("#ddf4ff", "#0969da")

# -- the life of a run -------------------------------------------------------------------------------------------------

IDLE, PENDING, QUEUED, WAITING, STARTED, CANCELLED = "idle", "PENDING", "QUEUED", "WAITING", "STARTED", "CANCELLED"
OVER: Final = "over"
OF_RUN: Final = {cpu.WAITING: WAITING, cpu.CANCELLED: CANCELLED, cpu.STARTED: STARTED}
USER: Final = "thread"
ACTORS: Final = {"cpu0": "softclock", "cpu0.interrupt": "clock interrupt"}

SAYS: Final = {
    IDLE: "nothing is scheduled",
    PENDING: "in the wheel, until its time",
    QUEUED: "due: in the queue of its CPU",
    WAITING: "softclock acquires its lock",
    STARTED: "the callback runs",
    CANCELLED: "softclock is still at the lock",
    OVER: "idle again; or PENDING, if armed meanwhile",
}


def nothing(arg: None) -> None:
    """Be a callback."""


class Life(NamedTuple):
    """What the engine does with one callout: which calls lead from state to state, and what a stop returns in each."""

    steps: dict[tuple[str, str], set[str]]
    stops: dict[str, set[int]]


def state_of(c: Callout) -> str:
    """Return the name of the state that a callout is in; while it has a run, that of the run."""
    if c.run is not None:
        return OF_RUN[c.run.state]
    if c.state & state.QUEUED:
        return QUEUED
    return PENDING if c.state & state.PENDING else IDLE


def user_of(life: Life, locked: bool, then: Callable[[Callout], int]) -> Callable[[VirtualSMP], None]:
    """Return the scenario of a thread that arms a callout, and *then* does something else, while time goes on."""

    def scenario(vm: VirtualSMP) -> None:
        lock, c = Mtx("lock"), Callout()
        at, call, alone = IDLE, "", True
        with vm.setup():
            if locked:
                callout_init_mtx(c, lock)
            else:
                callout_init(c, 1)

        def look() -> None:
            nonlocal at, alone
            actor, now = vm.platform.me().name, state_of(c)
            alone = alone and actor == USER
            if now != at:
                by = f"{call}()" if actor == USER else ACTORS[actor]
                to = OVER if at in (STARTED, CANCELLED) and actor == "cpu0" else now
                life.steps.setdefault((at, to), set()).add(by)
                at = now

        def use(name: str, func: Callable[[Callout], int]) -> None:
            nonlocal call, alone
            if locked:
                mtx_lock(lock)
            call, alone, before = name, True, at
            result = func(c)
            if alone and name == "callout_stop":
                life.stops.setdefault(before, set()).add(result)
            if locked:
                mtx_unlock(lock)

        def thread() -> None:
            use("callout_stop", callout_stop)
            use("callout_reset", lambda c: callout_reset(c, 1, callback, None))
            use("callout_stop" if then is callout_stop else "callout_reset", then)
            use("callout_stop", callout_stop)

        def callback(arg: None) -> None:
            vm.point()

        vm.invariant(look)
        vm.spawn(thread)
        vm.settle()

    return scenario


def live() -> Life:
    """Return what is seen of a callout under every schedule with at most two preemptions."""
    life = Life({}, {})

    def again(c: Callout) -> int:
        return callout_reset(c, 5, nothing, None)

    for locked in (True, False):
        for then in (callout_stop, again):
            assert explore(user_of(life, locked, then), cpus=1, bound=2).exhausted
    return life


class Spot(NamedTuple):
    """Where a state stands on the paper: its left upper corner, and how wide it is."""

    left: int
    top: int
    width: int = 250


HIGH: Final = 46  # a state
SPOTS: Final[Mapping[str, Spot]] = {
    IDLE: Spot(210, 30),
    PENDING: Spot(210, 130),
    QUEUED: Spot(210, 230),
    WAITING: Spot(210, 330),
    STARTED: Spot(210, 430),
    OVER: Spot(210, 530, 310),
    CANCELLED: Spot(560, 375, 240),
}

# Each step: the way that its arrow goes, and where its words begin.
WAYS: Final[Mapping[tuple[str, str], tuple[str, tuple[int, int]]]] = {
    (IDLE, PENDING): ("M335 76 V130", (345, 107)),
    (PENDING, QUEUED): ("M335 176 V230", (345, 207)),
    (QUEUED, WAITING): ("M335 276 V330", (345, 307)),
    (WAITING, STARTED): ("M335 376 V430", (345, 407)),
    (STARTED, OVER): ("M335 476 V530", (345, 507)),
    (PENDING, IDLE): ("M210 153 H150 V53 H210", (52, 112)),
    (QUEUED, IDLE): ("M210 243 H150 V53 H210", (52, 207)),
    (QUEUED, PENDING): ("M460 253 H520 V153 H460", (530, 207)),
    (QUEUED, STARTED): ("M210 263 H150 V453 H210", (52, 348)),
    (WAITING, CANCELLED): ("M460 345 H680 V375", (470, 338)),
    (CANCELLED, OVER): ("M680 421 V553 H520", (690, 480)),
}
MORE: Final[Mapping[tuple[str, str], str]] = {
    (QUEUED, WAITING): ": its turn has come",
    (QUEUED, STARTED): ", without a lock",
    (WAITING, STARTED): ": has the lock",
    (STARTED, OVER): ": the callback has returned",
}


def run_picture() -> str:
    """Draw the life of a run."""
    life = live()
    assert life.steps.keys() == WAYS.keys(), life.steps.keys() ^ WAYS.keys()
    out = [_arrow(way) for way, _ in WAYS.values()]
    for step, (_, (left, top)) in WAYS.items():
        words = " or ".join(sorted(life.steps[step])) + MORE.get(step, "")
        before, comma, after = words.partition(",")
        out += (
            [_text(left, top, before + comma), _text(left, top + 16, after.strip())]
            if comma
            else [_text(left, top, words)]
        )
    for name, (left, top, width) in SPOTS.items():
        results = life.stops.get(name, set())
        inside, border = {1: GREEN, 0: YELLOW}.get(max(results, default=-1), GREY)
        out += [
            _box(left, top, width, HIGH, inside, border),
            _text(left + 10, top + 19, "" if name == OVER else name, bold=True),
            _text(left + 10, top + (28 if name == OVER else 37), SAYS[name], colour=FAINT),
        ]
        if results:
            (result,) = results
            out.append(_text(left + width - 10, top + 19, f"stop: {result}", colour=border, anchor="end"))
    notes = (
        "A search of every schedule with at most two preemptions has seen these steps, and no others.",
        "stop: what callout_stop() returns there. The callback never runs after 1; softclock may still be at the lock.",
    )
    out += [_text(20, 605 + 18 * line, note, colour=FAINT) for line, note in enumerate(notes)]
    return _picture(830, 640, "The life of a run", out)


# -- the wheel ---------------------------------------------------------------------------------------------------------

NOW: Final = 3_141_592_653_589  # ns after the system was opened: some 52 minutes
ARMED: Final = {
    "0.5 ms": 500_000,
    "40 ms": 40_000_000,
    "1 s": 10**9,
    "60 s": 60 * 10**9,
    "2 h": 7200 * 10**9,
    "30 d": 30 * 86400 * 10**9,
}
UNITS: Final = (
    (365.25 * 86400, "years"),
    (86400, "days"),
    (3600, "h"),
    (60, "min"),
    (1, "s"),
    (1e-3, "ms"),
    (1e-6, "µs"),
)


def words_of(ns: int) -> str:
    """Return a length of time in words."""
    size, unit = next(each for each in UNITS if ns / 1e9 >= each[0])
    return f"{ns / 1e9 / size:.3g} {unit}"


def wheel_picture() -> str:
    """Draw where a wheel files callouts that are armed for various times."""
    wheel, found = Wheel(), dict[int, list[tuple[int, str]]]()
    for seq, (name, after) in enumerate(ARMED.items()):
        c = Callout()
        c.state = state.ARMED
        at = wheel.spot(NOW + after, seq, NOW)
        wheel.put(c, at, NOW + after, seq)
        assert isinstance(at, Bucket)
        found.setdefault(at.level, []).append((at.begins >> LEVELS[at.level] & (1 << FAN) - 1, name))
    wheel.check()
    left, place = 190, 2
    out = [
        _text(20, 30, "a slot", bold=True),
        _text(100, 30, "a level", bold=True),
        _text(left, 30, f"its {1 << FAN} places, one for each slot", bold=True),
    ]
    for level, shift in enumerate(LEVELS):
        top = 52 + 44 * level
        out += [
            _text(20, top + 15, words_of(1 << shift)),
            _text(100, top + 15, words_of(min(1 << shift + FAN, 1 << 63))),
            _box(left, top, place << FAN, 20, *GREY),
        ]
        now = left + place * (NOW >> shift & (1 << FAN) - 1)
        out.append(f'<rect x="{now}" y="{top}" width="{place + 1}" height="20" fill="{RED[1]}"/>')
        for number, name in found.get(level, []):
            x = left + place * number
            out += [
                f'<rect x="{x}" y="{top}" width="{place + 1}" height="20" fill="{BLUE[1]}"/>',
                _text(x, top + 33, name, colour=BLUE[1], anchor="middle"),
            ]
    top = 60 + 44 * len(LEVELS)
    notes = (
        "Red: the slot in which it is now. Blue: a slot in use. Its bucket is the ring of the callouts due in it.",
        "The first level that reaches far enough is chosen. Short slots are sorted when they come; the callouts of a",
        "long one, of which most were stopped or armed again by then, are distributed over shorter slots.",
    )
    out += [_text(20, top + 18 * line, note, colour=FAINT) for line, note in enumerate(notes)]
    return _picture(830, top + 54, "Where the wheel files callouts", out)


# -- the rules ---------------------------------------------------------------------------------------------------------

COLOURS: Final = {Place.ASSIGNED: GREEN, Place.CPU0: YELLOW, Place.ERROR: RED, Place.ERROR_AT_INIT: RED}


def rules_picture() -> str:
    """Draw on which CPU a callout of each kind runs."""
    columns = ((20, 330), (360, 200), (570, 200))
    heads = ("initialised with", "softclock runs it on", "with C_DIRECT_EXEC")
    out = [_text(left + 10, 30, head, bold=True) for (left, _), head in zip(columns, heads, strict=True)]
    for row, (kind, places) in enumerate(RULES.items()):
        top = 44 + 36 * row
        out += [_box(20, top, 330, 30, *GREY), _text(30, top + 20, kind.value)]
        for (left, width), place in zip(columns[1:], places, strict=True):
            out += [_box(left, top, width, 30, *COLOURS[place]), _text(left + 10, top + 20, place.value)]
    return _picture(790, 56 + 36 * len(RULES), "The three rules: where a callout runs", out)


# -- stop and free -----------------------------------------------------------------------------------------------------


def race_picture() -> str:
    """Draw the shortest schedule in which what frees after a stop goes wrong: R4.1 of the museum."""
    exhibit = EXHIBITS["R4.1"]
    variant = next(each for each in exhibit.variants if each.name == "stop")
    try:
        explore(variant.scenario, cpus=variant.cpus, bound=variant.preemptions, cells_only=variant.cells_only)
    except Violation as violation:
        drawing = violation.drawing
    else:
        raise AssertionError("nothing was found")
    assert drawing is not None
    return svg(replace(drawing, notes=()), f"R4.1, {exhibit.title}: {variant.says}")


# -- drawing -----------------------------------------------------------------------------------------------------------


def _text(left: int, top: int, text: str, *, colour: str = INK, bold: bool = False, anchor: str = "start") -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{left}" y="{top}" fill="{colour}" text-anchor="{anchor}"{weight}>{escape(text)}</text>'


def _box(left: int, top: int, width: int, height: int, inside: str, border: str) -> str:
    return f'<rect x="{left}" y="{top}" width="{width}" height="{height}" rx="4" fill="{inside}" stroke="{border}"/>'


def _arrow(way: str) -> str:
    return f'<path d="{way}" fill="none" stroke="{LINE}" stroke-width="1.5" marker-end="url(#head)"/>'


def _picture(width: int, height: int, title: str, parts: list[str]) -> str:
    """Return the text of a file. Its background is painted, so that it can be read on a dark page."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="system-ui, Helvetica, Arial, sans-serif" font-size="13">\n'
        f"<title>{escape(title)}</title>\n"
        '<defs><marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        f'<path d="M0 0 L8 4 L0 8 z" fill="{LINE}"/></marker></defs>\n'
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>\n' + "\n".join(filter(None, parts)) + "\n</svg>\n"
    )


def make() -> dict[str, str]:
    """Return each picture by the name of its file."""
    return {
        "run.svg": run_picture(),
        "wheel.svg": wheel_picture(),
        "rules.svg": rules_picture(),
        "stop-and-free.svg": race_picture(),
    }


if __name__ == "__main__":
    PICTURES.mkdir(exist_ok=True)
    for file, text in make().items():
        (PICTURES / file).write_text(text, "utf-8")
