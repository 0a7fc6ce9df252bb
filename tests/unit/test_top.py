"""`callout top`: systems of other processes, looked at through their sockets; by a real process, and on a terminal."""

from __future__ import annotations

import asyncio
import io
import json
import os
import pty
import signal
import socket
import stat
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import trio
from rich.console import Console

from callout import ArgumentTypeError, ArgumentValueError, guest, open_callouts
from callout.cli import main
from callout.top import _live, _sockets, _source, _table

LOOKED_AT: Final = """
import sys, trio
from callout import open_callouts

async def main():
    async with open_callouts(cpus=2, top=True) as system:
        system.call_later(3600, print, "a secret", name="idle", lock=system.mutex("conn"))
        print("open", flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)

trio.run(main)
"""


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have the sockets in a folder of the test's own."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def process() -> Iterator[subprocess.Popen[str]]:
    """Give a process with a system that can be looked at; it ends when its standard input does."""
    with subprocess.Popen(
        [sys.executable, "-c", LOOKED_AT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "open\n"
        yield child
        if child.poll() is None:
            child.kill()


def ignore(*args: object) -> None:
    """Be a callback that does nothing."""


def test_another_process_is_looked_at(
    process: subprocess.Popen[str], runtime: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By its number, by the path of its socket, or as the only one: it tells of CPUs and callouts, of no arguments."""
    path = runtime / "callout" / f"{process.pid}.sock"
    for target in ([str(process.pid)], [str(path)], []):
        assert main(["top", "--json", *target]) == 0
        told = json.loads(capsys.readouterr().out)

        assert told.keys() == {"stats", "callouts"}
        assert [cpu["pending"] for cpu in told["stats"]["cpus"]] == [1, 0]
        (info,) = told["callouts"]
        assert (info["name"], info["function"], info["lock"], info["state"]) == ("idle", "print", "conn", ["pending"])
        assert "secret" not in json.dumps(told)

    assert main(["top", str(process.pid)]) == 0  # standard output is no terminal
    text = capsys.readouterr().out
    assert "idle (print)" in text
    assert "PENDING" in text


def test_only_its_owner_may_connect(process: subprocess.Popen[str], runtime: Path) -> None:
    """The folder may be entered, and the socket be used, by nobody else."""
    folder = runtime / "callout"

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / f"{process.pid}.sock").stat().st_mode) == 0o600


def test_when_the_process_ends_its_socket_is_gone(
    process: subprocess.Popen[str], runtime: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The end of the block removes it; then the command says that nothing is there, and what to do."""
    assert process.stdin is not None
    process.stdin.close()
    process.wait()

    assert list((runtime / "callout").iterdir()) == []
    assert main(["top", str(process.pid)]) == 2
    assert "open_callouts(top=True)" in capsys.readouterr().err


def test_what_a_killed_process_has_left_is_dead(
    process: subprocess.Popen[str], runtime: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Named, it is said to be dead; else it is removed, and there is no system to look at."""
    process.kill()
    process.wait()
    path = runtime / "callout" / f"{process.pid}.sock"

    assert main(["top", str(path)]) == 2
    assert "its process has ended" in capsys.readouterr().err
    assert path.exists()
    assert main(["top"]) == 2
    assert "no system to look at" in capsys.readouterr().err
    assert not path.exists()


class Terminal:
    """A terminal, on which `callout top` runs."""

    def __init__(self, *arguments: str, name: str = "xterm-256color") -> None:
        self.ours, self.theirs = pty.openpty()
        termios.tcsetwinsize(self.ours, (40, 160))
        self.before = termios.tcgetattr(self.theirs)
        self.child = subprocess.Popen(
            [sys.executable, "-m", "callout", "top", *arguments],
            stdin=self.theirs,
            stdout=self.theirs,
            stderr=self.theirs,
            env=os.environ | {"TERM": name},
            start_new_session=True,
        )
        self.seen = b""

    def until(self, text: bytes) -> None:
        """Read what it shows until *text* was shown; fail if it ends before that."""
        while text not in self.seen:
            assert self._read(), self.seen
        self.seen = self.seen.partition(text)[2]

    def _read(self) -> bool:
        try:
            piece = os.read(self.ours, 65536)
        except OSError:  # Linux says so of a terminal that nobody has open
            return False
        self.seen += piece
        return bool(piece)

    def rest(self) -> bytes:
        """Return what is shown until it has ended, and how the terminal is then."""
        os.close(self.theirs)
        while self._read():
            pass
        self.child.wait()
        return self.seen


SHOWN: Final = b"idle (print)"
ENTERS: Final = b"\x1b[?1049h"  # the other screen
LEAVES: Final = b"\x1b[?1049l"
CURSOR: Final = b"\x1b[?25h"

each_signal = pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])


@each_signal
def test_a_signal_leaves_the_terminal_as_it_was(
    process: subprocess.Popen[str], number: signal.Signals, status: int
) -> None:
    """After Ctrl-C, and when it is told to end: the screen of before, the cursor, and the settings of the terminal."""
    terminal = Terminal(str(process.pid), "--interval", "0.1")
    terminal.until(SHOWN)
    terminal.until(SHOWN)  # it is kept up to date
    terminal.child.send_signal(number)
    after = termios.tcgetattr(terminal.theirs)
    rest = terminal.rest()

    assert terminal.child.returncode == status
    assert LEAVES in rest
    assert CURSOR in rest
    assert b"Traceback" not in rest
    assert after == terminal.before


@each_signal
def test_a_signal_waits_until_the_first_picture_is_drawn(
    process: subprocess.Popen[str], number: signal.Signals, status: int
) -> None:
    """One that comes when the other screen was just entered leaves it, too."""
    terminal = Terminal(str(process.pid), "--interval", "0.1")
    terminal.until(ENTERS)
    terminal.child.send_signal(number)
    rest = terminal.rest()

    assert terminal.child.returncode == status
    assert LEAVES in rest
    assert CURSOR in rest


def test_it_can_be_suspended(process: subprocess.Popen[str]) -> None:
    """Ctrl-Z leaves the other screen until it goes on; here at once, since no shell is there to continue it."""
    terminal = Terminal(str(process.pid), "--interval", "0.1")
    terminal.until(SHOWN)
    terminal.child.send_signal(signal.SIGTSTP)
    terminal.until(CURSOR)
    terminal.until(LEAVES)
    terminal.until(ENTERS)
    terminal.until(SHOWN)
    terminal.child.send_signal(signal.SIGTSTP)  # again
    terminal.until(LEAVES)
    terminal.until(SHOWN)
    terminal.child.send_signal(signal.SIGINT)
    rest = terminal.rest()

    assert terminal.child.returncode == 130
    assert LEAVES in rest


def test_on_a_dumb_terminal_it_is_printed_once(process: subprocess.Popen[str]) -> None:
    """As in a pipe: its cursor cannot be moved."""
    terminal = Terminal(str(process.pid), name="dumb")
    rest = terminal.rest()

    assert terminal.child.returncode == 0
    assert SHOWN in rest
    assert b"\x1b" not in rest


def test_it_ends_when_the_system_does(process: subprocess.Popen[str]) -> None:
    """The terminal is as it was, and the last line says why."""
    terminal = Terminal(str(process.pid), "--interval", "0.1")
    terminal.until(SHOWN)
    assert process.stdin is not None
    process.stdin.close()
    rest = terminal.rest()

    assert terminal.child.returncode == 0
    assert LEAVES in rest
    assert rest.rstrip().endswith(b"the system was closed")


def at_once(path: Path) -> dict[str, Any]:
    """Return what the system at *path* tells."""
    return _source.read(str(path))


@pytest.mark.trio
async def test_a_path_may_be_given(tmp_path: Path) -> None:
    """A socket is made there, and removed at the end; a dead one that was there is replaced."""
    path = tmp_path / "my.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with open_callouts(top=path) as system:
        system.call_later(3600, ignore)
        told = await trio.to_thread.run_sync(at_once, path)

        assert told["callouts"][0]["function"] == "ignore"
        with pytest.raises(FileExistsError):
            async with open_callouts(top=str(path)):
                pass
    assert not path.exists()


def test_a_system_in_asyncio_is_looked_at(tmp_path: Path) -> None:
    """The guest of a loop of asyncio tells the same, and its socket is removed, too."""
    path = tmp_path / "my.sock"

    async def run() -> None:
        async with guest.open_callouts(top=path) as system:
            system.call_later(3600, ignore)
            told = await asyncio.to_thread(at_once, path)

            assert told["callouts"][0]["function"] == "ignore"
        assert not path.exists()
        with pytest.raises(FileNotFoundError):
            async with guest.open_callouts(top=tmp_path / "none" / "my.sock"):
                pytest.fail("it was opened")

    asyncio.run(run())


@pytest.mark.trio
async def test_two_systems_of_a_process_have_two_sockets(runtime: Path) -> None:
    """Where there are several the command names them, and wants one of the names."""
    async with open_callouts(top=True), open_callouts(top=True):
        names = [path.stem for path in _sockets.found()]

        assert names == [f"{os.getpid()}-2", str(os.getpid())]
        with pytest.raises(_source.SourceError, match="several systems"):
            _source.find(None)
        assert _source.find(names[0]) == str(runtime / "callout" / f"{names[0]}.sock")
    assert _sockets.found() == []


@pytest.mark.trio
async def test_fifty_callouts_are_told_of(tmp_path: Path) -> None:
    """Of more, the first that are due."""
    async with open_callouts(top=tmp_path / "s") as system:
        for number in range(60):
            system.call_later(100 + number, ignore, name=str(number))
        told = await trio.to_thread.run_sync(at_once, tmp_path / "s")

        assert [each["name"] for each in told["callouts"]] == [str(number) for number in range(50)]
        assert told["stats"]["total"]["pending"] == 60


@pytest.mark.trio
async def test_on_a_narrow_terminal_no_figure_is_cut(tmp_path: Path) -> None:
    """Columns keep their widths; those for which there is no room are left out on the right."""
    async with open_callouts(top=tmp_path / "s") as system:
        system.call_later(3600, ignore, name="idle")
        told = await trio.to_thread.run_sync(at_once, tmp_path / "s")
    narrow = io.StringIO()
    Console(file=narrow, width=36).print(_live._picture(told, None, ""))

    assert "\nCPU  PENDING  FIRED/S  ARMED/S  REAR\n" in narrow.getvalue()
    assert "  0  pending  idle (ignore\n" in narrow.getvalue()


@pytest.mark.trio
async def test_a_folder_of_somebody_else_is_refused(runtime: Path) -> None:
    """One that others may enter, too: nothing is opened then."""
    (runtime / "callout").mkdir(mode=0o755)
    (runtime / "callout").chmod(0o755)
    with pytest.raises(PermissionError, match="nobody else may enter"):
        async with open_callouts(top=True):
            pytest.fail("it was opened")
    with pytest.raises(ArgumentTypeError, match="top must be"):
        open_callouts(top=5)  # type: ignore[arg-type]  # on purpose


def test_somebody_elses_socket_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says whose it is."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        if os.getuid() == 0:
            os.chown(path, 12345, -1)
        owner = path.stat().st_uid
        monkeypatch.setattr(os, "getuid", lambda: owner + 1)
        with pytest.raises(_source.SourceError, match=f"belongs to user {owner}"):
            _source.read(str(path))


def test_what_tells_nothing_is_said_to_be_blocked(tmp_path: Path) -> None:
    """A loop that is blocked accepts no connection: that is said, and not waited for any longer."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        with pytest.raises(_source.SilentError, match="loop of its CPU 0 is blocked"):
            _source.read(str(tmp_path / "s"), patience=0.01)


@pytest.mark.parametrize("said", [b"hello\n", b"[]\n", b'{"stats": 1}\n'])
def test_what_is_no_system_is_refused(tmp_path: Path, said: bytes) -> None:
    """A socket of something else: a message, and no traceback."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()

        def tell() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(said)

        thread = threading.Thread(target=tell)
        thread.start()
        with pytest.raises(_source.SourceError, match="no socket of a callout system"):
            _source.read(str(tmp_path / "s"))
        thread.join()


def test_names_are_no_commands_to_the_terminal() -> None:
    """What cannot be printed is a question mark; what is long is cut."""
    assert _table.clean("a\x1b[2Jb") == "a?[2Jb"
    assert len(_table.clean("x" * 1000)) == 60


@pytest.mark.parametrize("make", ["file", "folder", "fifo"])
def test_what_is_no_socket_is_named(tmp_path: Path, make: str) -> None:
    """Not taken for one of a process that has ended."""
    path = tmp_path / "s"
    if make == "file":
        path.touch()
    elif make == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)

    with pytest.raises(_source.SourceError, match="is no socket"):
        _source.read(str(path))


@pytest.mark.parametrize("target", ["x" * 300, "", "a\0b"])
def test_what_cannot_be_a_path_is_refused(target: str, capsys: pytest.CaptureFixture[str]) -> None:
    """By one line, which is about the socket."""
    assert main(["top", "--once", target]) == 2
    err = capsys.readouterr().err

    assert err.startswith("callout top: ")
    assert "standard output" not in err
    assert err.count("\n") == 1


def test_what_tells_little_by_little_is_not_waited_for(tmp_path: Path) -> None:
    """Patience is for all that it tells, not for each piece."""
    over = threading.Event()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()

        def tell() -> None:
            connection, _ = listener.accept()
            with connection:
                while not over.wait(0.01):
                    connection.sendall(b" ")

        thread = threading.Thread(target=tell)
        thread.start()
        with pytest.raises(_source.SilentError):
            _source.read(str(tmp_path / "s"), patience=0.1)
        over.set()
        thread.join()


@pytest.mark.trio
@pytest.mark.parametrize("top", ["", "a\0b", "x" * 200])
async def test_where_no_socket_can_be_is_refused(top: str) -> None:
    """Before anything was opened, with what can be given."""
    with pytest.raises(ArgumentValueError, match=r"^open_callouts: top must be the path of a socket, of 1 to 10[37]"):
        open_callouts(top=top)


@pytest.mark.trio
async def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    """A file in the place of the socket is an error that names it, and stays."""
    path = tmp_path / "mine"
    path.write_text("mine")

    with pytest.raises(FileExistsError, match="mine is there already: remove it"):
        async with open_callouts(top=path):
            pytest.fail("opened")
    assert path.read_text() == "mine"
