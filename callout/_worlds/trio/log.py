"""The package's log: structlog, as the application configured it.

structlog that nobody configured prints everything to standard output, which a library must not do to an application.
Then the standard library's logging is used, which by default shows warnings on standard error.
"""

from __future__ import annotations

import logging
from typing import cast

import structlog


def log() -> structlog.stdlib.BoundLogger:
    """Return the logger ``callout``."""
    if structlog.is_configured():
        return cast("structlog.stdlib.BoundLogger", structlog.get_logger("callout"))
    return cast(
        "structlog.stdlib.BoundLogger",
        structlog.wrap_logger(
            logging.getLogger("callout"),
            processors=[structlog.stdlib.filter_by_level, structlog.processors.format_exc_info, _render],
            wrapper_class=structlog.stdlib.BoundLogger,
        ),
    )


_render_pairs = structlog.processors.KeyValueRenderer(key_order=["event"])


def _render(logger: logging.Logger, name: str, event: structlog.typing.EventDict) -> str:
    return str(_render_pairs(logger, name, event))
