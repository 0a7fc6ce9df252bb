"""The package's log: structlog, as the application configured it. Whatever goes wrong in it, ``tell`` does not raise.

structlog that nobody configured prints everything to standard output, which a library must not do to an application.
Then the standard library's logging is used, which by default shows warnings on standard error.
"""

from __future__ import annotations

import logging
import sys
from typing import Final, Literal, NamedTuple, cast

import structlog

Level = Literal["debug", "info", "warning", "error"]

_LONGEST: Final = 1000  # characters of a repr


def tell(level: Level, event: str, error: BaseException | None = None, **facts: object) -> None:
    """Log *event* with *facts*, and with the traceback of *error*. Never raises, whatever the application's log does.

    What the log raises is given to ``sys.unraisablehook``, as what a finalizer raises is.
    """
    try:
        getattr(_log(), level)(event, **facts, **({} if error is None else {"exc_info": error}))
    except BaseException as worse:
        _unraisable(worse, event)


def text_of(thing: object) -> str:
    """Return the repr of *thing*, shortened; of what has none that works, its type. Never raises."""
    try:
        text = repr(thing)
    except BaseException as error:
        return f"<{type(thing).__name__} at {id(thing):#x}, whose repr raised {type(error).__name__}>"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def name_of(func: object) -> str:
    """Return how to call a function in a message. Never raises."""
    try:
        name = func.__qualname__  # type: ignore[attr-defined]  # the exception is the test
    except BaseException:
        return text_of(func)
    return name if isinstance(name, str) else text_of(func)


class _Unraisable(NamedTuple):
    """What ``sys.unraisablehook`` takes; the class that it usually gets cannot be made."""

    exc_type: type[BaseException]
    exc_value: BaseException | None
    exc_traceback: object
    err_msg: str | None
    object: object


def _unraisable(error: BaseException, event: str) -> None:
    message = f"The log of callout could not be told {event!r}; ignored"
    try:
        sys.unraisablehook(_Unraisable(type(error), error, error.__traceback__, message, None))  # type: ignore[arg-type]  # has its fields
    except BaseException:  # noqa: S110 - nobody is left who could be told
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
