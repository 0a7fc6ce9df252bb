"""The command ``callout explore``."""

from __future__ import annotations

import dataclasses
import fnmatch
import json
import re
import subprocess
import sys
from pathlib import Path
from types import MappingProxyType

import pytest

from callout.cli import main
from callout.explore import explore
from callout.museum import EXHIBITS, Exhibit, Variant, _command
from callout.testing import VirtualSMP


def test_a_race_is_found_and_told(capsys: pytest.CaptureFixture[str]) -> None:
    """Story, sources, what went wrong, and the schedule; status 1."""
    assert main(["explore", "R0.1"]) == 1
    out = capsys.readouterr().out

    assert out.startswith("R0.1  ")
    assert "Source: Ingo Molnar" in out
    assert "del_timer_sync returned, and then H starts on cpu 0" in out
    assert "went wrong; replay it with" in out


def test_its_remedies_are_clean(capsys: pytest.CaptureFixture[str]) -> None:
    """A certificate for each; status 0."""
    assert main(["explore", "R0.1", "--fixed"]) == 0
    out = capsys.readouterr().out

    assert out.count("nothing was found in") == len(EXHIBITS["R0.1"].fixed) >= 2
    assert "every schedule with at most 3 preemptions, but for equivalent ones" in out


def test_one_variant_with_another_bound(capsys: pytest.CaptureFixture[str]) -> None:
    """With too few preemptions the race is not found."""
    assert main(["explore", "R0.1", "--variant", "test7", "--bound", "0"]) == 0
    assert "with at most 0 preemptions" in capsys.readouterr().out


def test_the_list_has_every_race_and_variant(capsys: pytest.CaptureFixture[str]) -> None:
    """Each race has a line, and each of its variants."""
    assert main(["explore", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()

    assert len(EXHIBITS) == 29
    for exhibit in EXHIBITS.values():
        assert f"{exhibit.number:6}{exhibit.title}" in lines
    assert len(lines) == sum(1 + len(exhibit.variants) for exhibit in EXHIBITS.values())


def test_the_picture_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--svg writes the diagram of the first violation."""
    file = tmp_path / "r.svg"
    assert main(["explore", "R0.1", "--svg", str(file)]) == 1

    assert capsys.readouterr().out.endswith(f"\nwritten: {file}\n")
    assert "del_timer_sync" in file.read_text("utf-8")
    assert file.read_text("utf-8").startswith("<svg ")


@pytest.mark.parametrize("name", ["none/r.svg", "."])
def test_a_picture_that_cannot_be_written_is_wrong_usage(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 2, and nothing is explored."""
    assert main(["explore", "R0.1", "--svg", str(tmp_path / name)]) == 2
    captured = capsys.readouterr()

    assert not captured.out
    assert re.fullmatch(r"callout explore: --svg: '.*' cannot be written: (No such file|Is a) .*\n", captured.err)


def test_where_nothing_is_found_there_is_no_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """That it can be written is tried, and leaves no file; one that was there is as it was."""
    file = tmp_path / "r.svg"
    argv = ["explore", "R0.1", "--variant", "order-fix", "--svg", str(file)]
    assert main(argv) == 0
    assert not file.exists()

    file.write_text("of yesterday", "utf-8")
    assert main(argv) == 0
    assert file.read_text("utf-8") == "of yesterday"
    assert "written" not in capsys.readouterr().out


def test_the_string_of_a_race_replays_it_in_a_fresh_process(capsys: pytest.CaptureFixture[str]) -> None:
    """What the command prints is all that a new process needs; the same error, and status 1."""
    main(["explore", "R0.1"])
    (schedule,) = re.findall(r"^replay: (.*)$", capsys.readouterr().out, re.MULTILINE)

    again = subprocess.run(
        [sys.executable, "-m", "callout", "explore", "--replay", schedule], capture_output=True, text=True, check=False
    )

    assert schedule.startswith("v4,R0.1.test7,")
    assert (again.returncode, again.stderr) == (1, "")
    assert again.stdout == "AssertionError: del_timer_sync returned, and then H starts on cpu 0\n"
    assert main(["explore", "--replay", schedule.replace("test7", "order-fix")]) == 0


def few(*exhibits: Exhibit) -> MappingProxyType[str, Exhibit]:
    """Return a museum of these."""
    return MappingProxyType({exhibit.number: exhibit for exhibit in exhibits})


def test_the_table_says_what_every_variant_has_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line for each; status 0 if all is as it should be."""
    monkeypatch.setattr(_command, "EXHIBITS", few(EXHIBITS["R0.1"], EXHIBITS["R1.1"]))
    assert main(["explore", "--all"]) == 0
    out = capsys.readouterr().out

    assert "**" not in out
    assert len(out.splitlines()) == 1 + len(EXHIBITS["R0.1"].variants) + len(EXHIBITS["R1.1"].variants)


def test_the_table_says_what_is_not_as_it_should_be(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A race that is not found, or a remedy that goes wrong, is marked; status 1."""
    buggy, fixed = EXHIBITS["R0.1"].buggy[0], EXHIBITS["R0.1"].fixed[0]
    wrong = (dataclasses.replace(buggy, breaks=""), dataclasses.replace(fixed, breaks="what never happens"))
    monkeypatch.setattr(_command, "EXHIBITS", few(dataclasses.replace(EXHIBITS["R0.1"], variants=wrong)))
    assert main(["explore", "--all"]) == 1
    out = capsys.readouterr().out

    assert "** expected: nothing" in out
    assert "** expected: what never happens" in out


RULE = "give one of these: a race, * for which there are --fixed, * or --replay, whose string names its race"


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ([], RULE),
        (["R9.9"], "there is no race 'R9.9'; callout explore --list"),
        (["R0.1", "--all"], RULE),
        (["--all", "--fixed"], RULE),
        (["R0.1", "--bound", "-1"], "from 0 up"),
        (["R0.1", "--variant", "none"], "no such variant 'none'; it has test7"),
        (["R0.1", "--variant", "test7", "--fixed"], "no such variant 'test7'; it has order-fix"),
        (["R0.1", "--fixed", "--svg", "x.svg"], "with --fixed nothing does"),
        (["--list", "--svg", "x.svg"], RULE),
        (["R0.1", "--replay", "x"], RULE),
        (["--replay", "x", "--svg", "x.svg"], RULE),
        (["--replay", "x"], "'x' is not a schedule"),
        (["--replay", "v4,R9.9.x,cpus=1,hz=1000,paths=short:,choices=0"], "there is no race 'R9.9.x'"),
        (["--replay", "v4,R0.1.test7,cpus=1,hz=1000,paths=short:0*99.1,choices=100"], "does not fit this scenario"),
        (
            ["--replay", "v4,R0.1.test7,cpus=7,hz=1000,paths=short:,choices=0"],
            "explored with cpus=1,hz=1000,paths=short",
        ),
        (
            ["--replay", "v4,R0.1.test7,cpus=1,hz=1000,paths=long:,choices=0"],
            "was found with cpus=1,hz=1000,paths=long",
        ),
    ],
)
def test_wrong_usage_is_one_line_that_says_what_to_do(
    argv: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 2, and nothing is explored."""
    assert main(["explore", *argv]) == 2
    captured = capsys.readouterr()

    assert fnmatch.fnmatchcase(captured.err, f"callout explore: *{says}*\n")
    assert captured.err.count("\n") == 1
    assert not captured.out


def test_json_in_place_of_text(capsys: pytest.CaptureFixture[str]) -> None:
    """The races, or what became of the variants of one; with --replay it is wrong usage."""
    assert main(["explore", "--list", "--json"]) == 0
    races = json.loads(capsys.readouterr().out)
    assert [race["race"] for race in races] == list(EXHIBITS)
    assert races[0]["variants"][0].keys() == {"variant", "goes wrong", "says"}

    assert main(["explore", "R0.1", "--json"]) == 1
    (found, *_) = json.loads(capsys.readouterr().out)
    assert found["race"] == "R0.1"
    assert found["found"]
    assert not found["exhausted"]

    assert main(["explore", "--replay", found["schedule"]]) == 1
    capsys.readouterr()

    assert main(["explore", "--json", "--replay", found["schedule"]]) == 2
    assert capsys.readouterr().err.startswith("callout explore: --json does not apply to --replay")


@pytest.mark.parametrize("words", [["R0.1"], ["--all"]])
def test_ctrl_c_says_how_far_it_came(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """How many variants were explored, and how many schedules of the next; the status is 130."""

    def interrupted(variant: Variant, bound: int, *, shrink: bool) -> object:
        def scenario(vm: VirtualSMP) -> None:
            raise KeyboardInterrupt

        return explore(scenario, cpus=1)

    monkeypatch.setattr(_command, "_search", interrupted)

    assert main(["explore", *words]) == 130
    assert re.fullmatch(
        r"callout explore: interrupted after 0 of \d+ variants; explore: 0 schedules were run\n",
        capsys.readouterr().err,
    )
