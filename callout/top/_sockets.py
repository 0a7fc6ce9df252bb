"""Where the sockets are of systems that can be looked at: in a folder that only its owner may enter.

That is ``callout`` in ``$XDG_RUNTIME_DIR``, or else ``callout-UID`` in the folder for temporary files. A socket has the
number of its process for a name. The folder must belong to this user, be no link, and be closed to all others: in a
folder that anybody may write to, anybody could have made it before.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

CALLOUTS: Final = 50  # how many are told of, the first that are due
MOST: Final = 107 if sys.platform == "linux" else 103  # bytes of a path: what fits into a sockaddr_un
AVAILABLE: Final = hasattr(socket, "AF_UNIX") and hasattr(os, "getuid")
_SUFFIX: Final = ".sock"
_MOST_OF_A_PROCESS: Final = 1000  # systems


def folder() -> Path:
    """Return where the sockets of this user are. It need not exist."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and Path(runtime).is_absolute():
        return Path(runtime) / "callout"
    return Path(tempfile.gettempdir()) / f"callout-{os.getuid()}"


def _open_folder() -> Path:
    """Make the folder, if it is not there, and return it. Raises PermissionError if it is not this user's alone."""
    path = folder()
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(
            f"{path} must be a folder of yours that nobody else may enter: remove it, or chmod 700 it"
        )
    return path


def listen(where: str | os.PathLike[str] | None) -> tuple[socket.socket, str]:
    """Return a socket that listens, which only this user may connect to, and its path; *where* None: a new one in the
    folder. Raises OSError.
    """
    if where is not None:
        path = os.fspath(where)
        _remove_if_dead(path)
        return _listen_at(path), path
    place = _open_folder()
    for number in range(1, _MOST_OF_A_PROCESS):
        path = str(place / f"{os.getpid()}{f'-{number}' if number > 1 else ''}{_SUFFIX}")
        try:
            _remove_if_dead(path)
            return _listen_at(path), path
        except FileExistsError:
            continue  # another system of this process
    raise FileExistsError(f"{place} is full")


def _listen_at(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.fchmod(listener.fileno(), 0o600)  # Linux makes the file with the mode that the socket has
        try:
            listener.bind(path)
        except OSError as error:
            if os.path.lexists(path):
                raise FileExistsError(
                    errno.EEXIST, f"{path} is there already: remove it, or have the socket elsewhere"
                ) from None
            raise type(error)(error.errno, f"{path}: {error.strerror or error}") from None
        try:
            Path(path).chmod(0o600)  # elsewhere it does not
            listener.listen()
        except OSError:
            Path(path).unlink()
            raise
    except OSError:
        listener.close()
        raise
    return listener


def _remove_if_dead(path: str) -> None:
    """Remove a socket of this user at which nobody listens: a process has died there."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if stat.S_ISSOCK(found.st_mode) and found.st_uid == os.getuid() and is_dead(path):
        Path(path).unlink()


def is_dead(path: str) -> bool:
    """Return whether nobody listens at that socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False


def remove(path: str, listener: socket.socket) -> None:
    """Stop listening, and remove the file."""
    listener.close()
    with suppress(OSError):
        Path(path).unlink()


def is_mine(connection: socket.socket) -> bool:
    """Return whether the other end is a process of this user, or of root; where that cannot be known it is."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return True
    _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, option, struct.calcsize("3i")))
    return uid in (0, os.getuid())


def found() -> list[Path]:
    """Return the sockets in the folder at which somebody listens, by their names; remove those that are dead."""
    try:
        paths = sorted(each for each in folder().iterdir() if each.suffix == _SUFFIX)
    except OSError:
        return []
    alive = []
    for path in paths:
        with suppress(OSError):
            _remove_if_dead(str(path))
            if path.exists():
                alive.append(path)
    return alive


def of_process(pid: int) -> list[Path]:
    """Return the sockets of that process, the first system first."""
    mine = [folder() / f"{pid}{_SUFFIX}", *sorted(folder().glob(f"{pid}-*{_SUFFIX}"))]
    return [path for path in mine if path.exists()]


__all__ = ["AVAILABLE", "CALLOUTS", "MOST", "folder", "found", "is_dead", "is_mine", "listen", "of_process", "remove"]
