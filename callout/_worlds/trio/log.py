"""The package's log: structlog, as the application configured it. Whatever goes wrong in it, ``tell`` does not raise.

structlog that nobody configured prints everything to standard output, which a library must not do to an application.
Then the standard library's logging is used, which by default shows warnings on standard error.
"""

from __future__ import annotations

import logging
import sys
import traceback
from typing import Final, Literal, cast

import structlog

Level = Literal["debug", "info", "warning", "error"]

_LONGEST: Final = 1000  # characters of a repr


def tell(level: Level, event: str, error: BaseException | None = None, **facts: object) -> None:
    """Log *event* with *facts*, and with the traceback of *error*. Never raises, whatever the application's log does.

    What the log raises goes to standard error, as what a handler of the standard library's logging raises does.
    """
    try:
        getattr(_log(), level)(event, **facts, **({} if error is None else {"exc_info": error}))
    except BaseException as worse:
        _complain(worse, event)


def text_of(thing: object) -> str:
    """Return the repr of *thing*, shortened; of what has none that works, its type. Never raises."""
    try:
        text = repr(thing)
    except BaseException as error:
        return f"<{type(thing).__name__} at {id(thing):#x}, whose repr raised {type(error).__name__}>"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _complain(error: BaseException, event: str) -> None:
    try:
        if sys.stderr is not None:
            sys.stderr.write(f"callout: the log could not be told of {event}:\n")
            traceback.print_exception(error, file=sys.stderr)
    except BaseException:  # noqa: S110 - nothing is left that could be told
        pass


def _log() -> structlog.stdlib.BoundLogger:
    """Return the logger ``callout``."""
    if structlog.is_configured():
        return cast("structlog.stdlib.BoundLogger", structlog.get_logger("callout"))
    return cast(
        "structlog.stdlib.BoundLogger",
        structlog.wrap_logger(
            logging.getLogger("callout"),
            processors=[structlog.stdlib.filter_by_level, _render],
            wrapper_class=structlog.stdlib.BoundLogger,
        ),
    )


_render_pairs = structlog.processors.KeyValueRenderer(key_order=["event"])


def _render(
    logger: logging.Logger, name: str, event: structlog.typing.EventDict
) -> tuple[tuple[str], dict[str, BaseException]]:
    """Give the standard library's logging a text, and the exception, of which its formatters make the traceback."""
    error = event.pop("exc_info", None)
    return (str(_render_pairs(logger, name, event)),), {} if error is None else {"exc_info": error}
