"""The reports for machines: JSON, and JUnit XML as CI services read it."""

from __future__ import annotations

import re
from typing import Any, Final
from xml.etree import ElementTree as ET

from . import _words
from ._judge import Failure, Verdict
from ._tally import Tally

# What XML 1.0 cannot hold, not even as a reference.
_NOT_XML: Final = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_LONGEST: Final = 10_000  # characters of JSON that "got" may have


def as_json(tally: Tally) -> dict[str, Any]:  # Any: JSON
    """Return the run in the form that docs/conformance.md describes."""
    return {
        "format": 1,
        "implementation": tally.implementation,
        "platform": tally.platform,
        "passed": tally.passed,
        "failed": len(tally.failures),
        "not_run": tally.not_run,
        "interrupted": tally.interrupted,
        "kinds": [
            {"kind": kind, "count": len(verdicts), "ids": list(dict.fromkeys(each.scenario.id for each in verdicts))}
            for kind, verdicts in tally.kinds().items()
        ],
        "tags": {tag: {"passed": passed, "failed": failed} for tag, (passed, failed) in tally.tags().items()},
        "scenarios": [_scenario(verdict) for verdict in tally.verdicts],
    }


def _scenario(verdict: Verdict) -> dict[str, Any]:
    return {
        "id": verdict.scenario.id,
        "title": verdict.scenario.title,
        "api": verdict.scenario.api,
        "tags": list(verdict.scenario.tags),
        "seed": verdict.seed,
        "seconds": round(verdict.seconds, 6),
        "passed": verdict.failure is None,
        "failure": None if verdict.failure is None else _failure(verdict.failure),
    }


def _failure(failure: Failure) -> dict[str, Any]:
    found = failure.mismatch
    what = {"what": found.what, "expected": found.expected, "got": _bounded(found.got)} if found else {}
    return {"kind": failure.kind, "step": failure.step, "lines": list(failure.lines), **what}


def _bounded(got: object) -> object:
    """Return what an implementation did, or as a text its beginning: it may be without end."""
    text = _words.value(got, _LONGEST)
    return text if text.endswith("…") else got


def as_junit(tally: Tally) -> bytes:
    """Return the run as JUnit XML: one test case for each replay."""
    seconds = sum(verdict.seconds for verdict in tally.verdicts)
    counts = {
        "tests": str(len(tally.verdicts)),
        "failures": str(len(tally.failures)),
        "errors": "0",
        "skipped": "0",
        "time": f"{seconds:.6f}",
    }
    root = ET.Element("testsuites", counts)
    suite = ET.SubElement(root, "testsuite", {"name": _xml(f"callout conformance {tally.implementation}"), **counts})
    for verdict in tally.verdicts:
        order = "" if verdict.seed is None else f" [seed {verdict.seed}]"
        title = f" {verdict.scenario.title}" if verdict.scenario.title else ""
        case = ET.SubElement(
            suite,
            "testcase",
            classname=f"callout.conformance.{verdict.scenario.api}",
            name=_xml(f"{verdict.scenario.id}{order}{title}"),
            time=f"{verdict.seconds:.6f}",
        )
        if verdict.failure is not None:
            found = ET.SubElement(case, "failure", message=_xml(verdict.failure.kind))
            found.text = _xml("\n".join(verdict.failure.lines))
    ET.indent(root)
    made: bytes = ET.tostring(root, "utf-8", xml_declaration=True)
    return made + b"\n"


def _xml(text: str) -> str:
    return _NOT_XML.sub(lambda found: ascii(found[0])[1:-1], text)
