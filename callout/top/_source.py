"""The end of ``callout top``: finds a system, connects to it, and reads what it tells."""

from __future__ import annotations

import json
import os
import socket
import stat
import time
from pathlib import Path
from typing import Any, Final

from ._sockets import AVAILABLE, folder, found, of_process

PATIENCE: Final = 5.0  # seconds; a system tells at once, unless its loop is blocked
_AT_LEAST: Final = 0.001  # seconds: what is there already is read
_MOST: Final = 2**24  # bytes

Snapshot = dict[str, Any]  # JSON


class SourceError(Exception):
    """A system cannot be looked at; the message says why, and what to do."""


class EndedError(SourceError):
    """Nobody listens there: the process, or the system, has ended."""


class SilentError(SourceError):
    """It listens, but tells nothing: the loop of its CPU 0 is blocked."""


_HOW: Final = "open the system with open_callouts(top=True)"


def find(target: str | None) -> str:
    """Return the path of the socket that *target* names, a process or a path; None: the only one that there is.

    Raises:
        SourceError: there is none, or several.
    """
    if not AVAILABLE:
        raise SourceError("there are no Unix-domain sockets here, and top needs them")
    if target is None:
        paths = found()
        if len(paths) > 1:
            names = ", ".join(path.stem for path in paths)
            raise SourceError(f"there are several systems: {names}; name one: callout top {paths[0].stem}")
        if not paths:
            raise SourceError(f"there is no system to look at in {folder()}: {_HOW}")
        return str(paths[0])
    if target.isdecimal():
        paths = of_process(int(target))
        if not paths:
            raise SourceError(f"process {target} has no system to look at in {folder()}: {_HOW}")
        return str(paths[0])
    if not target:
        raise SourceError("give the number of a process or the path of a socket, or nothing at all")
    in_folder = folder() / f"{target}.sock"  # the name of a second system of a process: 1234-2
    if os.sep not in target and not os.path.lexists(target) and in_folder.exists():
        return str(in_folder)
    return target


def read(path: str, patience: float = PATIENCE) -> Snapshot:
    """Return what the system at *path* tells now. Blocks for *patience* seconds at most, and as long to connect.

    Raises:
        EndedError, SilentError, SourceError: it cannot be looked at.
    """
    try:
        status = Path(path).stat()
    except FileNotFoundError:
        raise EndedError(f"there is no socket {path!r}: its system was closed, or never was there") from None
    except (OSError, ValueError) as error:
        raise SourceError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    owner = status.st_uid
    if not stat.S_ISSOCK(status.st_mode):
        raise SourceError(f"{path} is no socket: give the one that the system was opened with, or the process")
    if owner not in (os.getuid(), 0) and os.getuid() != 0:
        raise SourceError(f"{path} belongs to user {owner}; only its owner may look")
    pieces = []
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(patience)
            connection.connect(path)
            size, end = 0, time.monotonic() + patience
            while (piece := connection.recv(65536)) and size < _MOST:
                pieces.append(piece)
                size += len(piece)
                connection.settimeout(max(end - time.monotonic(), _AT_LEAST))
    except ConnectionRefusedError:
        raise EndedError(f"nobody listens at {path}: its process has ended without removing it") from None
    except TimeoutError:
        raise SilentError(f"{path} has told nothing for {patience:g} s: the loop of its CPU 0 is blocked") from None
    except PermissionError:
        raise SourceError(f"{path}: permission denied; only its owner may look") from None
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror or error}") from None
    if not pieces:
        raise EndedError(f"{path} has told nothing: its system is being closed")
    try:
        told = json.loads(b"".join(pieces))
    except ValueError:
        told = None
    if not isinstance(told, dict) or told.keys() != {"stats", "callouts"}:
        raise SourceError(f"{path} is no socket of a callout system")
    return told


__all__ = ["EndedError", "SilentError", "Snapshot", "SourceError", "find", "read"]
