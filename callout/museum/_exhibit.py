"""What an exhibit is: a race as a small executable model, with the variants that have it and those that do not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..testing import VirtualSMP


@dataclass(frozen=True)
class Variant:
    """One program: a scenario for ``explore()``, and what exploring it must show."""

    name: str  # what it is called on the command line: "test7", "order-fix"
    says: str  # one line: what is different in it
    scenario: Callable[[VirtualSMP], object]
    breaks: str = ""  # what goes wrong, a part of the violation's text; "" if nothing does
    preemptions: int = 0  # with how many at most that is found
    cpus: int = 1  # virtual CPUs, for those that run the real engine
    cells_only: bool = True  # its threads share nothing but cells, structures, locks and callouts


@dataclass(frozen=True)
class Exhibit:
    """One race."""

    number: str  # as in the literature of this project: "R0.1"
    title: str
    story: str  # a paragraph: who, when, what goes wrong and why
    sources: tuple[str, ...]  # where it is told: mails, commits, reviews, pages of the manual
    variants: tuple[Variant, ...]

    def __post_init__(self) -> None:
        """Give each scenario the name that its schedules have: "R0.1.test7"."""
        for variant in self.variants:
            named: Any = variant.scenario  # Any: every function has a name, and its type does not say so
            named.__qualname__ = f"{self.number}.{variant.name}"

    @property
    def buggy(self) -> tuple[Variant, ...]:
        """The variants that have the race."""
        return tuple(variant for variant in self.variants if variant.breaks)

    @property
    def fixed(self) -> tuple[Variant, ...]:
        """The variants that do not."""
        return tuple(variant for variant in self.variants if not variant.breaks)
