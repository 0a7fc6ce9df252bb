"""What the searches find: the mutants that are races, kept in a file, and the page of the manual."""

from __future__ import annotations

import csv
import hashlib
import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from tests.mutants.operators import Mutation, path_of
from tests.mutants.races import rule
from tests.mutants.runner import Result
from tests.mutants.table import NOT_KILLED, equivalent

HERE: Final = Path(__file__).parent
FILE: Final = HERE / "races.csv"
REASONS: Final = HERE / "survivors.toml"
AGAIN: Final = HERE / "again.txt"  # of what engine and file all were found again
PAGE: Final = HERE.parents[1] / "docs" / "engine-mutants.md"

FOUND: Final = "found"
EQUIVALENT: Final = "equivalent"
SURVIVES: Final = "survives"
UNREACHED: Final = "not executed"
NOT_RUN: Final = "not run"


class Row(NamedTuple):
    """What became of a mutant."""

    mutant: str
    rule: str
    outcome: str
    scenario: str  # that found it
    schedules: str  # how many were run until then; "" if one did not end, or if the runs differed


def row_of(mutation: Mutation, result: Result | None) -> Row:
    """Return the row of a mutant that is a race."""
    name, by = mutation.name, rule(mutation)
    if name in equivalent():
        return Row(name, by, EQUIVALENT, "", "")
    if result is None:
        return Row(name, by, NOT_RUN, "", "")
    if result.kind == "unreached":
        return Row(name, by, UNREACHED, "", "")
    if result.kind == "same":
        return Row(name, by, EQUIVALENT, "", "")
    if result.kind in NOT_KILLED:
        return Row(name, by, SURVIVES, "", "")
    number = re.match(r"schedule (\d+):", result.why)
    return Row(name, by, FOUND, result.killer, number[1] if number else "")


def read() -> list[Row]:
    """Return what the file says."""
    with FILE.open(encoding="utf-8", newline="") as text:
        return [Row(**row) for row in csv.DictReader(text)]


def rows_of(mutations: Iterable[Mutation], results: Mapping[str, Result]) -> list[Row]:
    """Return the rows of today's list: what was run just now, else what the file says of it."""
    before = {row.mutant: row for row in read()}
    rows = []
    for mutation in mutations:
        kept, result = before.get(mutation.name), results.get(mutation.name)
        if kept is not None and result is None and mutation.name not in equivalent():
            rows.append(kept)
        else:
            rows.append(row_of(mutation, result))
    return rows


def write(rows: Iterable[Row]) -> None:
    """Write the file and the page."""
    kept = list(rows)
    with FILE.open("w", encoding="utf-8", newline="") as text:
        out = csv.writer(text, lineterminator="\n")
        out.writerow(Row._fields)
        out.writerows(kept)
    PAGE.write_text(page(kept), encoding="utf-8")


def state(modules: Iterable[str]) -> str:
    """Return a digest of the file, and of the source of the modules."""
    digest = hashlib.sha256(FILE.read_bytes())
    for module in sorted(modules):
        digest.update(path_of(module).read_bytes())
    return f"{digest.hexdigest()}\n"


def reasons() -> dict[str, str]:
    """Return why mutants that no search finds are no holes: by name, or by function for all of one."""
    found: dict[str, str] = tomllib.loads(REASONS.read_text(encoding="utf-8"))
    return found


def killers() -> dict[str, str]:
    """Return by what the file says that each mutant was found."""
    return {row.mutant: row.scenario for row in read() if row.outcome == FOUND}


def holes(rows: Iterable[Row]) -> list[str]:
    """Return the mutants that were not found, and of which nothing says why they need not be."""
    known = reasons()
    return [
        row.mutant for row in rows if row.outcome in (SURVIVES, UNREACHED, NOT_RUN) and not reason_of(row.mutant, known)
    ]


def summary(rows: Iterable[Row]) -> str:
    """Say how many there are of each outcome."""
    outcomes = Counter(row.outcome for row in rows)
    return f"{outcomes.total()} mutants: " + ", ".join(f"{count} {kind}" for kind, count in outcomes.most_common())


def reason_of(mutant: str, known: dict[str, str]) -> str:
    """Return the reason for a mutant that survives or is not executed; "" if there is none."""
    return known.get(mutant) or known.get(mutant.partition(" | ")[0]) or equivalent().get(mutant, "")


def page(rows: Iterable[Row]) -> str:
    """Return the page of the manual."""
    kept = list(rows)
    known = reasons()
    outcomes = Counter(row.outcome for row in kept)
    rules = Counter((row.rule, row.outcome) for row in kept)
    names = (FOUND, SURVIVES, UNREACHED, EQUIVALENT, NOT_RUN)
    out = [
        "# The engine's mutants, and the schedules that find them",
        "",
        "This page is made by `python -m tests.mutants --races --page` from `tests/mutants/races.csv`.",
        "",
        *HEAD,
        "",
        f"{len(kept)} mutants are races by these rules:",
        "",
        f"| rule | {' | '.join(names)} |",
        f"| --- |{' ---: |' * len(names)}",
        *(
            f"| {by} | {' | '.join(str(rules[by, outcome]) for outcome in names)} |"
            for by in dict.fromkeys(row.rule for row in kept)
        ),
        f"| all | {' | '.join(str(outcomes[outcome]) for outcome in names)} |",
        "",
        *_lasting(kept, known),
        "## What finds which",
        "",
        "| mutant | the search that finds it | schedules |",
        "| --- | --- | ---: |",
        *(
            f"| {_cell(row.mutant)} | {_cell(row.scenario)} | {row.schedules or 'none ends'} |"
            for row in kept
            if row.outcome == FOUND
        ),
        "",
    ]
    return "\n".join(out)


def _lasting(kept: Iterable[Row], known: dict[str, str]) -> Iterator[str]:
    """Yield the tables of what was not found."""
    for outcome, title in ((SURVIVES, "What survives"), (UNREACHED, "What no search executes")):
        yield f"## {title}"
        yield ""
        yield "| mutant | reason |"
        yield "| --- | --- |"
        grouped: dict[tuple[str, str], list[str]] = {}
        for row in kept:
            if row.outcome == outcome:
                reason = reason_of(row.mutant, known) or "not looked at yet"
                by_function = row.mutant not in known and row.mutant.partition(" | ")[0] in known
                name = row.mutant.partition(" | ")[0] if by_function else row.mutant
                grouped.setdefault((name, reason), []).append(row.mutant)
        for (name, reason), mutants in grouped.items():
            yield f"| {_cell(name)}{f' ({len(mutants)} mutants)' if name not in mutants else ''} | {_cell(reason)} |"
        yield ""


def _cell(text: str) -> str:
    return (
        f"`{text}`".replace("|", "\\|") if " | " in text or ":" in text.partition(" ")[0] else text.replace("|", "\\|")
    )


HEAD: Final = """\
A test of a race counts when it fails for an engine that has the race. Here the only tests are searches: the core of the
[matrix](engine-matrix.md), the scenarios of `tests/race/test_mutants.py`, and the tests of `tests/race` that call
`explore()` and plant no bug themselves; no unit test and no recording. Of a search counts only that a schedule goes
wrong, or that one never ends, not how many schedules there are.

The mutants are those of `tests/mutants/operators.py`, in the modules through which threads, softclock and the clock
interrupt meet, by the rules of `tests/mutants/races.py`: two neighbours swapped or a lock released too early (`order`),
a call left out (`call`), a store to a guarded field left out (`state`), a look at what others change not made (`look`),
and the bugs that were planted by hand (`planted`). The rules are broad, so that no race is left out: many of these
mutants break what one thread shows as well, and some break only what no schedule shows. The number is how many
schedules were run until one went wrong; with 1 it was the first, in which nobody is interrupted.

What survives has survived some seconds of searches, the quickest first of those that execute what is changed: not all,
so more of it may be found by `python -m tests.mutants --races --left --budget 300`. Each has its reason below, why it
is no hole, with a test or a recording of a kernel that does find it.""".splitlines()
