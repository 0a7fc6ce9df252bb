"""Makes docs/demo.svg, a picture of what ``callout demo`` shows on a terminal: ``python tests/unit/screenshot.py``.

It is of a real run, in a pseudo-terminal. The demo writes one line of figures over itself, and erases it at the end:
the picture has the last state of it, and then the table. rich reads the colours, and draws.
"""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Final

from rich.ansi import AnsiDecoder
from rich.console import Console
from rich.text import Text

PICTURE: Final = Path(__file__).parents[2] / "docs" / "demo.svg"
COMMAND: Final = ("demo", "--seconds", "3", "--connections", "200")
COLUMNS: Final = 120
ERASED: Final = "\r\x1b[K"  # a line, from its beginning to its end


def shown(command: tuple[str, ...]) -> str:
    """Run a command of ``callout`` in a terminal, and return what it has written there."""
    terminal, inner = pty.openpty()
    fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 30, COLUMNS, 0, 0))
    env = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "COLUMNS"}}
    with (
        subprocess.Popen(
            [sys.executable, "-m", "callout", *command],
            stdin=inner,
            stdout=inner,
            stderr=inner,
            env=env | {"TERM": "xterm-256color"},
        ) as process,
        os.fdopen(terminal, encoding="utf-8", newline="") as out,
    ):
        os.close(inner)
        text = ""
        try:
            while piece := out.read(1):
                text += piece
        except OSError:  # the other end was closed
            pass
    if process.returncode:
        raise RuntimeError(f"it ended with status {process.returncode}: {text}")
    return text


def picture(command: tuple[str, ...], text: str) -> str:
    """Return the picture of a command that has written *text*."""
    line, _, table = text.rpartition(ERASED)
    decoder = AnsiDecoder()
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), no_color=False)
    console.print(Text(f"$ callout {' '.join(command)}", "bold"))
    console.print(decoder.decode_line(line), Text(), sep="\n")
    for each in decoder.decode(table.replace("\r\n", "\n").rstrip()):
        console.print(each)
    svg = console.export_svg(title="callout demo", unique_id="demo")
    # A font that the reader has: the drawing says how wide each piece of text is, and nothing is loaded.
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    return svg.replace("font-family: Fira Code, monospace", "font-family: monospace")


if __name__ == "__main__":
    PICTURE.write_text(picture(COMMAND, shown(COMMAND)), "utf-8")
