"""The report for people: failures by kind, a summary by tag, the counts."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import Final

from . import _words
from ._format import Scenario
from ._judge import Verdict
from ._tally import Tally, columns

KINDS: Final = 25  # kinds that are shown with scenarios
LISTED: Final = 50  # further ones that are listed
SHOWN: Final = 3  # scenarios of one kind that are shown with all that is known of them
NAMED: Final = 8  # further ones that are named
WIDTH: Final = 120


def report(tally: Tally, *, with_summary: bool) -> Iterator[str]:
    """Yield the lines of the report."""
    kinds = [*tally.kinds().items()]
    for kind, verdicts in kinds[:KINDS]:
        yield from _kind(_words.text(kind), verdicts)
        yield ""
    if kinds[KINDS:]:
        yield f"and {len(kinds) - KINDS} more kinds:"
        yield from (f"  {_words.text(kind)} ({len(verdicts)})" for kind, verdicts in kinds[KINDS:][:LISTED])
        yield from ["  …"] * bool(kinds[KINDS + LISTED :])
        yield ""
    if tally.failures or with_summary:
        yield from _summary(tally)
        yield ""
    yield tally.last_line()


def _kind(kind: str, verdicts: Sequence[Verdict]) -> Iterator[str]:
    yield f"FAILED {kind} ({len(verdicts)})"
    for verdict in verdicts[:SHOWN]:
        assert verdict.failure is not None
        yield f"  {_words.heading(verdict.scenario)}"
        for line in verdict.failure.lines:
            yield f"    {_words.text(line, 500)}"
        if verdict.seed is not None:
            yield f"    under the random order with seed {verdict.seed}"
    others = list(dict.fromkeys(verdict.scenario.id for verdict in verdicts[SHOWN:]))
    if others:
        more = f" and {len(others) - NAMED} more" if len(others) > NAMED else ""
        yield f"  also: {', '.join(others[:NAMED])}{more}"


def _summary(tally: Tally) -> Iterator[str]:
    tags = tally.tags()
    wrong = sorted(
        ((tag, *counts) for tag, counts in tags.items() if counts[1]), key=lambda row: row[1] / (row[1] + row[2])
    )
    if wrong:
        yield "By tag, those with the most failures first:"
        rows = [("tag", "passed", "failed"), *((tag, str(passed), str(failed)) for tag, passed, failed in wrong)]
        yield from (f"  {line}" for line in columns(rows))
    right = [f"{tag} {counts[0]}" for tag, counts in tags.items() if not counts[1]]
    if right:
        yield "Tags of which all passed:"
        yield from textwrap.wrap(
            ", ".join(right), WIDTH, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
        )


def show(scenario: Scenario) -> Iterator[str]:
    """Yield the lines that tell a scenario: what there is, what is done, what the kernel did."""
    yield _words.heading(scenario)
    deviation = f", alloweddeviation {scenario.alloweddeviation} %" if scenario.alloweddeviation else ""
    yield f"  {scenario.api}, {scenario.ncpu} CPU{'s' if scenario.ncpu > 1 else ''}{deviation}"
    yield from _wrapped("tags", ", ".join(scenario.tags) or "none")
    yield from _wrapped("locks", ", ".join(f"{name} ({kind})" for name, kind in scenario.locks.items()) or "none")
    threads = [
        f"{name} (on CPU {scenario.thread_cpu[name]})" if name in scenario.thread_cpu else name
        for name in scenario.threads
    ]
    yield from _wrapped("threads", ", ".join(threads) or "none")
    for name in scenario.callouts:
        yield f"  callout {name}: {_words.callout(scenario, name)}"
    for name in scenario.fns:
        yield from _wrapped(f"fn {name}", _words.program(scenario, name))
    before: dict[str, list[int]] = {}
    for number, step in enumerate(scenario.steps):
        yield f"  {_words.step(scenario, number)} -> {_words.value(step.ret)}"
        for actor, events in step.events.items():
            for event in events:
                yield f"      {actor}: {event[0]} {' '.join(map(_words.word, event[1:]))}"
        for name, state in step.state.items():
            if state != before.get(name):
                bits = zip(("pending", "active"), state, strict=False)
                yield f"      {name}: {', '.join(word if bit else f'not {word}' for word, bit in bits)}"
        before = before | step.state


def _wrapped(what: str, text: str) -> Iterator[str]:
    yield from textwrap.wrap(
        f"{what}: {text}", WIDTH, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False
    )
