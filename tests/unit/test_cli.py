"""The command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from callout.cli import main
from callout.conformance import load, shipped


def one_scenario() -> dict[str, Any]:
    """Return a small scenario as JSON."""
    line = next(path for path in shipped("freebsd") if path.name == "named.jsonl").read_text().splitlines()[0]
    scenario: dict[str, Any] = json.loads(line)
    return scenario


def write(path: Path, *scenarios: object) -> str:
    """Write a trace file."""
    path.write_text("".join(json.dumps(scenario) + "\n" for scenario in scenarios))
    return str(path)


@pytest.mark.parametrize("platform", ["virtual", "trio"])
def test_the_last_line_counts_and_the_status_is_0_when_all_pass(
    platform: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A scenario that passes is counted, and nothing failed."""
    assert main(["conformance", "--platform", platform, write(tmp_path / "one.jsonl", one_scenario())]) == 0
    assert capsys.readouterr().out == "1 passed, 0 failed\n"


def test_a_mismatch_names_scenario_step_expected_and_got(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What differs is printed so that one can look it up, and the status is 1."""
    scenario = one_scenario()
    scenario["steps"][0]["ret"] = 17

    assert main(["conformance", write(tmp_path / "one.jsonl", scenario)]) == 1
    out = capsys.readouterr().out
    assert scenario["title"] in out
    assert "step 0: t0 reset" in out
    assert "expected 17, got 0" in out
    assert out.endswith("0 passed, 1 failed\n")


def test_random_orders_are_replayed_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--orders N replays each scenario N more times."""
    assert main(["conformance", "--orders", "3", write(tmp_path / "one.jsonl", one_scenario())]) == 0
    assert capsys.readouterr().out == "4 passed, 0 failed\n"


def test_tags_select(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Only scenarios with all the tags given are replayed."""
    first, second = one_scenario(), one_scenario()
    second |= {"id": "other", "tags": [*second["tags"], "special"]}

    assert main(["conformance", "--tag", "special", "--tag", "reset", write(tmp_path / "t.jsonl", first, second)]) == 0
    assert capsys.readouterr().out == "1 passed, 0 failed\n"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--tag", "no-such-tag"], "no-such-tag"),
        (["no-such-file.jsonl"], "no-such-file.jsonl: cannot be read"),
        (["--impl", "nothing"], "neither a built-in implementation"),
        (["--impl", "no_such_module:factory"], "no_such_module"),
        (["--impl", "json:no_such_name"], "no_such_name"),
        (["--platform", "trio", "--orders", "2"], "--orders needs --platform virtual"),
        (["--orders", "-1"], "--orders must not be negative"),
    ],
)
def test_what_cannot_be_done_is_status_2_with_a_reason(
    arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wrong input is one clear line on standard error."""
    assert main(["conformance", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert reason in captured.err
    assert captured.err.count("\n") == 1


def test_a_truncated_file_is_status_2_with_line_and_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The line that cannot be read is named."""
    path = tmp_path / "cut.jsonl"
    path.write_text(json.dumps(one_scenario()) + "\n" + json.dumps(one_scenario())[:100])

    assert main(["conformance", str(path)]) == 2
    assert f"{path}:2: not JSON (is the file truncated?)" in capsys.readouterr().err


def test_an_implementation_that_raises_has_failed_the_scenario(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody's broken factory is a failure of each scenario, not the end of the run."""
    (tmp_path / "broken_implementation.py").write_text("def factory(scenario):\n    raise OSError('out of order')\n")
    monkeypatch.syspath_prepend(tmp_path)

    assert main(["conformance", "--impl", "broken_implementation:factory", write(tmp_path / "s", one_scenario())]) == 1
    out = capsys.readouterr().out
    assert "raised OSError: out of order" in out
    assert out.endswith("0 passed, 1 failed\n")


def test_an_implementation_of_ones_own_is_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """MODULE:FACTORY is driven through the Subsystem protocol."""
    (tmp_path / "own_implementation.py").write_text(
        "from callout.conformance import builtin\ndef factory(scenario):\n    return builtin(scenario)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    assert main(["conformance", "--impl", "own_implementation:factory", "--tag", "giant"]) == 0
    count = sum("giant" in scenario.tags for path in shipped("freebsd") for scenario in load(path))
    assert capsys.readouterr().out == f"{count} passed, 0 failed\n"


def test_without_greenlet_the_virtual_platform_is_one_error_that_names_the_extra() -> None:
    """A core installation is told once what to install, and the status is 2."""
    code = "import sys; sys.modules['greenlet'] = None; from callout.cli import main; sys.exit(main(['conformance']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert done.stdout == ""
    assert "callout[explore]" in done.stderr
    assert done.stderr.count("\n") == 1


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    """--version prints it, and --help names both commands."""
    for arguments in (["--version"], ["--help"]):
        with pytest.raises(SystemExit) as info:
            main(arguments)
        assert info.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith("callout ")
    assert "conformance" in out
    assert "demo" in out
