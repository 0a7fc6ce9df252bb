"""A search that ended before all was done."""

from __future__ import annotations


class CutShortWarning(UserWarning):
    """The search of an explored test ended at one of its limits: there are schedules that were not run."""
