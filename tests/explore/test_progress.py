"""The line on the terminal: when it is shown, what it says, and that it is gone in the end."""

from __future__ import annotations

import io
import os
import sys
from dataclasses import dataclass, field
from functools import partial

import pytest

from callout.explore import Violation, _progress, explore
from callout.explore._progress import AGAIN, FIRST, Progress, part_done, stream_for, wanted
from callout.testing import VirtualSMP

from . import scenarios
from .test_executor import Faraway


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def __init__(self, columns: int = 200) -> None:
        super().__init__()
        self.columns = columns

    def isatty(self) -> bool:
        """Say so."""
        return True

    def fileno(self) -> int:
        """Return a number that is no other file's."""
        return -1

    @property
    def screen(self) -> str:
        """What is on it: the cursor goes to the begin of the line at each return, and overwrites."""
        line = ""
        for written in self.getvalue().split("\r"):
            line = written + line[len(written) :]
        return line.rstrip()


@dataclass
class Clock:
    """A clock that goes on when it is looked at."""

    step: float
    now: float = 100.0

    def monotonic(self) -> float:
        """Look at it."""
        self.now += self.step
        return self.now


def at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Have standard error be a terminal at which somebody looks. Not a fixture: pytest sets both again after these."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(os, "get_terminal_size", lambda fd: os.terminal_size((terminal.columns, 24)))
    for name in ("CI", "PYTEST_CURRENT_TEST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    return terminal


def show_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the line written each time it could be."""
    monkeypatch.setattr(_progress, "FIRST", 0)
    monkeypatch.setattr(_progress, "AGAIN", 0)


SEARCH = partial(scenarios.counts, 2, 3)


def test_a_search_of_a_moment_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing at all is written."""
    terminal = at_a_terminal(monkeypatch)
    monkeypatch.setattr(_progress, "time", Clock(step=0))
    explore(SEARCH, cpus=1)

    assert terminal.getvalue() == ""


def test_a_long_one_shows_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Schedules, rate, time, and where; it is rewritten now and then, and erased in the end."""
    terminal = at_a_terminal(monkeypatch)
    clock = Clock(step=AGAIN / 4)
    monkeypatch.setattr(_progress, "time", clock)
    certificate = explore(SEARCH, cpus=1, reduce=False, bound=2)
    lines = terminal.getvalue().strip("\r").split("\r")

    assert lines[0].startswith(f"explore: {round(FIRST / clock.step)} schedules, 16 a second, 0 s, about ")
    assert lines[0].rstrip().endswith("% of the branches known so far")
    assert certificate.schedules / 5 < len(lines) <= certificate.schedules / 4
    assert lines[-1].strip() == ""
    assert terminal.screen == ""


@pytest.mark.parametrize("ends", ["violation", "interrupt"])
def test_it_is_erased_however_the_search_ends(ends: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a violation, by Ctrl-C."""
    terminal = at_a_terminal(monkeypatch)
    show_at_once(monkeypatch)
    runs: list[str] = []

    def scenario(vm: VirtualSMP) -> None:
        runs.append(terminal.screen)
        if len(runs) == 3 and ends == "interrupt":
            raise KeyboardInterrupt
        scenarios.loses(4, vm)

    with pytest.raises(Violation if ends == "violation" else KeyboardInterrupt):
        explore(scenario, cpus=1, shrink=False)

    assert any(screen.startswith("explore: ") for screen in runs)
    assert terminal.screen == ""


def test_it_counts_the_runs_of_all_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """And says how many parts of the search there are."""
    terminal = at_a_terminal(monkeypatch)
    show_at_once(monkeypatch)
    explore(partial(scenarios.counts, 3, 2), cpus=1, bound=2, reduce=False, executor=Faraway())

    assert "parts of the tree under way" in terminal.getvalue()
    assert terminal.screen == ""


def test_a_sample_says_how_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it stands needs no estimate."""
    terminal = at_a_terminal(monkeypatch)
    show_at_once(monkeypatch)
    explore(SEARCH, cpus=1, strategy="random", schedules=7)

    assert ", of 7" in terminal.getvalue()
    assert terminal.screen == ""


def test_it_is_no_longer_than_the_terminal_is_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A longer one could not be erased."""
    terminal = at_a_terminal(monkeypatch)
    terminal.columns = 20
    clock = Clock(step=FIRST)
    monkeypatch.setattr(_progress, "time", clock)
    with Progress(terminal) as progress:
        progress.is_over(1, lambda: "somewhere")
        assert terminal.screen == "explore: 1 schedule"
    assert terminal.screen == ""


def test_a_terminal_that_is_gone_ends_no_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then nothing more is shown."""
    terminal = at_a_terminal(monkeypatch)
    show_at_once(monkeypatch)

    def broken(text: str) -> int:
        raise BrokenPipeError

    monkeypatch.setattr(terminal, "write", broken)

    assert explore(SEARCH, cpus=1).exhausted


def test_pytest_is_not_disturbed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """In a test nothing is shown unless that is asked for."""
    show_at_once(monkeypatch)
    explore(SEARCH, cpus=1)
    assert capsys.readouterr().err == ""

    explore(SEARCH, cpus=1, progress=True)
    assert capsys.readouterr().err.startswith("\rexplore: 1 schedules")


@pytest.mark.parametrize(
    ("environ", "shown"),
    [
        ({}, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, True),
        ({"TERM": "dumb"}, False),
        ({"CI": "true"}, False),
        ({"CI": ""}, True),
        ({"PYTEST_CURRENT_TEST": "test_x.py::test_x (call)"}, False),
    ],
)
def test_a_terminal_decides_unless_the_environment_does(environ: dict[str, str], *, shown: bool) -> None:
    """There is none in a file, on a dumb terminal, in CI, and in a test. It has no colours."""
    assert wanted(Terminal(), environ) is shown
    assert not wanted(io.StringIO(), environ)
    assert not wanted(None, environ)


def test_what_was_asked_for_decides_before_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """progress=False is none, progress=True is one, anywhere."""
    terminal = at_a_terminal(monkeypatch)
    assert stream_for(None) is terminal
    assert stream_for(False) is None
    monkeypatch.setenv("CI", "1")
    assert stream_for(None) is None
    assert stream_for(True) is terminal


@dataclass
class Branch:
    """A node, as far as the estimate looks at it."""

    tried: set[str]
    left: set[str] = field(default_factory=set)


def test_the_part_done_is_that_of_the_branches_left_behind() -> None:
    """Each branch of a node counts alike: of three the first is done, and half of the second."""
    assert part_done([Branch({"a"})]) == 0
    assert part_done([Branch({"a", "b"}, {"c"}), Branch({"a"}), Branch({"a", "b"})]) == pytest.approx(0.5)
