"""The look of the commands: colour and progress on a terminal, text elsewhere."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace

import pytest

from callout import _terminal
from callout._terminal import BAD, Line, Progress, is_terminal, say


class Terminal(io.StringIO):
    """A terminal, as far as anybody asks."""

    def isatty(self) -> bool:
        """Return that it is one."""
        return True


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the environment of a terminal, whatever this process has; nothing waits to be drawn."""
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(_terminal, "REDRAW", 0)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Return what standard output and standard error are, to the commands."""
    both = Terminal()
    monkeypatch.setattr(_terminal, "sys", SimpleNamespace(stdout=both, stderr=both))
    return both


@pytest.fixture
def no_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have rich not be installed."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "rich"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "rich", None)


def test_a_terminal_has_a_cursor_that_can_be_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a pipe nor a dumb terminal counts, nor what is closed or not there."""
    terminal = Terminal()
    assert is_terminal(terminal)
    assert not is_terminal(io.StringIO())
    assert not is_terminal(None)

    for name in ("dumb", "unknown"):
        monkeypatch.setenv("TERM", name)
        assert not is_terminal(terminal)

    monkeypatch.setenv("TERM", "xterm")
    terminal.close()
    assert not is_terminal(terminal)


def test_what_is_said_has_its_style_on_a_terminal(terminal: Terminal) -> None:
    """With rich: red, and as it is, markup and all."""
    pytest.importorskip("rich")
    say("FOUND: [bold]1[/bold] :smile:", BAD)

    drawn = terminal.getvalue()
    assert drawn.startswith("\x1b[1;31m")
    assert "FOUND: [bold]1[/bold] :smile:" in drawn


def test_a_long_line_stays_one(terminal: Terminal) -> None:
    """What is said may be copied."""
    pytest.importorskip("rich")
    say("x" * 300, BAD)

    assert "x" * 300 in terminal.getvalue()


def test_no_color_is_honoured(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """With NO_COLOR there is no colour."""
    monkeypatch.setenv("NO_COLOR", "1")
    say("FOUND: 1", BAD)

    assert "FOUND: 1" in terminal.getvalue()
    assert "31m" not in terminal.getvalue()


@pytest.mark.usefixtures("no_rich")
def test_without_rich_there_is_plain_text(terminal: Terminal) -> None:
    """What is said is the same, and nothing else."""
    say("FOUND: 1", BAD)

    assert terminal.getvalue() == "FOUND: 1\n"


def test_in_a_pipe_there_is_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    """With rich, too; and no progress."""
    say("FOUND: 1", BAD)
    with Progress(2) as progress:
        progress.show(1, "1/2")
        progress.clear()

    assert capsys.readouterr() == ("FOUND: 1\n", "")


@pytest.mark.usefixtures("no_rich")
def test_the_bar_of_plain_characters(terminal: Terminal) -> None:
    """It is drawn over itself, erased by clear() and by the end, and drawn again."""
    with Progress(4) as progress:
        progress.show(1, "1/4")
        progress.show(2, "2/4")
        progress.clear()
        say("a line")
        progress.show(4, "4/4")

    erased = "\r\x1b[K"
    assert terminal.getvalue() == (
        "\r[#####               ] 1/4\x1b[K\r[##########          ] 2/4\x1b[K"
        f"{erased}a line\n\r[####################] 4/4\x1b[K{erased}"
    )


def test_the_bar_of_rich(terminal: Terminal) -> None:
    """It shows the same text, markup and all, and is gone at the end."""
    pytest.importorskip("rich")
    with Progress(4) as progress:
        progress.show(1, "1/4 [bold]")
        progress.clear()
        progress.show(2, "2/4")

    drawn = terminal.getvalue()
    assert "1/4 [bold]" in drawn
    assert "2/4" in drawn
    assert drawn.rindex("\x1b[2K") > drawn.rindex("2/4")  # erased


def test_it_is_drawn_no_oftener_than_it_can_be_read(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within REDRAW the second drawing is left out."""
    monkeypatch.setattr(_terminal, "REDRAW", 3600)
    monkeypatch.setattr(_terminal, "console_for", lambda stream: None)
    with Progress(2) as progress:
        progress.show(1, "first")
        progress.show(2, "second")

    assert "first" in terminal.getvalue()
    assert "second" not in terminal.getvalue()


def test_a_line_is_as_long_as_there_is_room() -> None:
    """The last column stays free; a line that was never drawn is not erased."""
    terminal = Terminal()
    line = Line(terminal)
    line.clear()
    assert terminal.getvalue() == ""

    line.draw("x" * 100)
    assert terminal.getvalue() == f"\r{'x' * 79}\x1b[K"


def test_a_terminal_that_goes_away_is_no_error() -> None:
    """A run does not end because nobody looks any more."""

    class Gone(Terminal):
        def write(self, text: str) -> int:
            raise OSError

    line = Line(Gone())
    line.draw("x")
    line.draw("x")
    line.clear()

    assert not line.seen
