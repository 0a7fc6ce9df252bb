"""What killed which mutant, kept in a file; and the mutants that nothing can kill, with the reasons."""

from __future__ import annotations

import json
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Final

from tests.mutants.operators import Mutation
from tests.mutants.runner import Result

EQUIVALENT: Final = Path(__file__).with_name("equivalent.toml")
NOT_KILLED: Final = frozenset({"survived", "unreached", "crash"})


def equivalent() -> dict[str, str]:
    """Return the mutants that do the same as the engine, and why they do."""
    rows: dict[str, str] = tomllib.loads(EQUIVALENT.read_text(encoding="utf-8"))
    return rows


class Table:
    """The results, the newest of each mutant."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.rows: dict[str, Result] = {}
        if file.exists():
            for line in file.read_text(encoding="utf-8").splitlines():
                result = Result(**json.loads(line))
                self.rows[result.name] = result

    def add(self, result: Result) -> None:
        """Keep a result."""
        self.rows[result.name] = result
        with self.file.open("a", encoding="utf-8") as out:
            out.write(json.dumps(asdict(result)) + "\n")

    def has_killed(self, name: str) -> bool:
        """Whether something has killed the mutant."""
        return name in self.rows and self.rows[name].kind not in NOT_KILLED

    def hints(self) -> dict[str, str]:
        """Return what killed each mutant."""
        return {name: row.killer for name, row in self.rows.items() if row.killer}

    def summary(self, mutations: Iterable[Mutation]) -> Iterator[str]:
        """Yield how many were killed by what kind of killer."""
        reasons = equivalent()
        kinds = Counter(
            "equivalent" if m.name in reasons else self.rows[m.name].kind if m.name in self.rows else "not run"
            for m in mutations
        )
        yield f"{kinds.total()} mutants: " + ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())

    def markdown(self, mutations: Iterable[Mutation]) -> Iterator[str]:
        """Yield the table."""
        reasons = equivalent()
        chosen = list(mutations)
        yield from self.summary(chosen)
        yield ""
        yield "| mutant | what kills it |"
        yield "| --- | --- |"
        for mutation in chosen:
            row = self.rows.get(mutation.name)
            killer = (
                f"equivalent: {reasons[mutation.name]}"
                if mutation.name in reasons
                else "not run"
                if row is None
                else f"{row.killer} ({row.kind})"
                if self.has_killed(mutation.name)
                else f"**{row.kind}**"
            )
            yield f"| {_cell(mutation.name)} | {_cell(killer)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
