"""What came out of a run, counted: all that the three reports, for people, as JSON and as JUnit XML, are made from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ._format import Scenario
from ._judge import Verdict


@dataclass
class Tally:
    """The verdicts of a run so far."""

    implementation: str
    platform: str | None
    planned: int
    """Replays that the run would have if nothing ended it."""
    verdicts: list[Verdict] = field(default_factory=list)
    failures: list[Verdict] = field(default_factory=list)
    interrupted: bool = False
    capped: bool = False
    """Whether ``--max-failures`` ended it."""

    def add(self, verdict: Verdict) -> None:
        """Count a verdict."""
        self.verdicts.append(verdict)
        if verdict.failure is not None:
            self.failures.append(verdict)

    @property
    def passed(self) -> int:
        """How many passed."""
        return len(self.verdicts) - len(self.failures)

    @property
    def not_run(self) -> int:
        """How many replays were not made, or not to their end."""
        return self.planned - len(self.verdicts)

    def kinds(self) -> dict[str, list[Verdict]]:
        """Return the failures by what went wrong first, the commonest kind first."""
        kinds: dict[str, list[Verdict]] = {}
        for verdict in self.failures:
            assert verdict.failure is not None
            kinds.setdefault(verdict.failure.kind, []).append(verdict)
        return dict(sorted(kinds.items(), key=lambda kind: -len(kind[1])))

    def tags(self) -> dict[str, tuple[int, int]]:
        """Return tag -> how many passed and failed, in alphabetical order."""
        passed: Counter[str] = Counter()
        failed: Counter[str] = Counter()
        for verdict in self.verdicts:
            (passed if verdict.failure is None else failed).update(verdict.scenario.tags)
        return {tag: (passed[tag], failed[tag]) for tag in sorted(passed | failed)}

    def last_line(self) -> str:
        """Return the counts."""
        counts = f"{self.passed} passed, {len(self.failures)} failed"
        if not self.not_run:  # it is not known yet how many there would have been
            return f"{counts} (interrupted)" if self.interrupted else counts
        why = "interrupted" if self.interrupted else "--max-failures"
        return f"{counts}, {self.not_run} not run ({why})"


def count_tags(scenarios: Iterable[Scenario]) -> dict[str, int]:
    """Return tag -> number of scenarios, in alphabetical order."""
    counts = Counter(tag for scenario in scenarios for tag in scenario.tags)
    return dict(sorted(counts.items()))


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows as lines, the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
