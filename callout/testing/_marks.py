"""The options that marks give a test."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NoReturn

import pytest


def options_of(item: pytest.Item, name: str, known: Collection[str], elsewhere: Mapping[str, str]) -> dict[str, Any]:
    """Return the options of a test's marks of this *name*, those of the nearest last. Fail if one is wrong.

    *known* are the options that there are; of those *elsewhere* it is said why they are none.
    """
    options: dict[str, Any] = {}
    for mark in reversed(list(item.iter_markers(name))):
        if mark.args:
            refuse(f"@pytest.mark.{name} takes options by name, such as cpus=2, and not {mark.args[0]!r}")
        options |= mark.kwargs
    for option, why in elsewhere.items():
        if option in options:
            refuse(f"@pytest.mark.{name} has no option {option}: {why}")
    unknown = [repr(option) for option in options if option not in known]
    if unknown:
        refuse(f"@pytest.mark.{name} has no option {', '.join(unknown)}; it has {', '.join(known)}")
    return options


def refuse(text: str) -> NoReturn:
    """Fail with these words, and no traceback."""
    __tracebackhide__ = True
    pytest.fail(text, pytrace=False)
