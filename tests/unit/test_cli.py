"""The command line."""

from __future__ import annotations

import argparse
import importlib
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from callout.cli import main
from callout.conformance import load, shipped


def one_scenario() -> dict[str, Any]:
    """Return a small scenario as JSON."""
    line = next(path for path in shipped("freebsd") if path.name == "named.jsonl").read_text().splitlines()[0]
    scenario: dict[str, Any] = json.loads(line)
    return scenario


def scenario_like(name: str, **changed: object) -> dict[str, Any]:
    """Return the small scenario with another id and other keys."""
    return one_scenario() | {"id": name, **changed}


def wrong(name: str, **changed: object) -> dict[str, Any]:
    """Return a scenario that no implementation can pass."""
    scenario = scenario_like(name, **changed)
    scenario["steps"][0]["ret"] = 1
    return scenario


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """Return a function that writes a module into the current directory and returns its name."""
    made: list[str] = []

    def write_module(code: str) -> str:
        name = f"own_module_{tmp_path.name}_{len(made)}"
        made.append(name)
        (tmp_path / f"{name}.py").write_text(code)
        importlib.invalidate_caches()
        return name

    monkeypatch.chdir(tmp_path)
    yield write_module
    for name in made:
        sys.modules.pop(name, None)


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
    scenario["steps"][0]["ret"] = 1

    assert main(["conformance", write(tmp_path / "one.jsonl", scenario)]) == 1
    out = capsys.readouterr().out
    assert out.startswith("FAILED result of reset: expected 1, got 0 (1)\n")
    assert scenario["title"] in out
    assert "step 0: t0 reset" in out
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
        (["--orders", "0"], "--orders must not be negative, nor 0"),
        (["--max-failures", "0"], "--max-failures must not be negative, nor 0"),
        (["--max-failures", "-3"], "--max-failures must not be negative, nor 0"),
        *(
            (["--timeout", value], f"above 0, or none, not {value}")
            for value in ("0", "-1", "nan", "inf", "x", "1e300")
        ),
        (["--impl", "json:loads", "--orders", "2"], "--orders does not apply: MODULE:FACTORY decides for itself"),
        (["--impl", "json:loads", "--platform", "trio"], "--platform does not apply: MODULE:FACTORY decides"),
        (["--api", "linux"], "--api does not apply to a built-in implementation: say --impl linux"),
        (["--impl", "linux", "--api", "linux"], "--api does not apply to a built-in implementation"),
        (["--list-tags", "--orders", "2"], "--orders does not apply: --list-tags replays nothing"),
        (["--list-tags", "--timeout", "3"], "--timeout does not apply"),
        (["--list-tags", "--json"], "--json does not apply"),
        (["--show", "fbs-0001", "--fail-fast"], "--max-failures does not apply"),
        (["--show", "fbs-0001", "--tag", "drain"], "--tag does not apply"),
        (["--show", "fbs-00001"], "there is no scenario 'fbs-00001' (did you mean fbs-0001"),
        (["--json", "--summary"], "--summary does not apply to --json"),
        (["--tag", "drian"], "no scenario has the tag 'drian' (did you mean drain?); see --list-tags"),
        (["--not-tag", "drian"], "no scenario has the tag 'drian'"),
        (["--tag", "drain", "--not-tag", "drain"], "all of the tags drain and none of the tags drain"),
        (["--id", "fbs-001"], "there is no scenario 'fbs-001' (did you mean fbs-0"),
        (["--id", "ls-000000"], "; it is one of linux: add --impl linux"),
        (["--junit", "no/such/folder/x.xml"], "--junit no/such/folder/x.xml: "),
        (["--junit", "."], "--junit .: "),
        (["--impl", "json:"], "say MODULE:FACTORY, both dotted names"),
        (["--impl", ":f"], "say MODULE:FACTORY, both dotted names"),
        (["--impl", "a:b:c"], "say MODULE:FACTORY, both dotted names"),
        (["--impl", ".a:b"], "say MODULE:FACTORY, both dotted names"),
        (["--impl", "json:__name__"], "__name__ is not a function"),
        (["--impl", "json:laods"], "no attribute 'laods' (did you mean loads"),
        ([str(Path(__file__).parent)], "it is a folder"),
        (["a\0b"], "cannot be read"),
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
    captured = capsys.readouterr()
    assert f"{path}:2: not JSON (is the file truncated?)" in captured.err
    assert captured.out == ""  # nothing was replayed before


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


def test_scenarios_are_chosen_by_id_and_by_tags(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--id takes those that it names, --not-tag leaves out, and both go together with --tag."""
    scenarios = [scenario_like(f"s{number}", tags=["even" if number % 2 == 0 else "odd", "all"]) for number in range(6)]
    path = write(tmp_path / "s", *scenarios)

    for options, count in (
        (["--id", "s1"], 1),
        (["--id", "s1", "--id", "s2"], 2),
        (["--not-tag", "odd"], 3),
        (["--tag", "all", "--not-tag", "even", "--id", "s1", "--id", "s2"], 1),
    ):
        assert main(["conformance", *options, path]) == 0
        assert capsys.readouterr().out == f"{count} passed, 0 failed\n"


def test_one_id_stands_once_in_all_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same id in two files, or one file given twice, is an error that names both places."""
    first, second = (write(tmp_path / name, one_scenario()) for name in ("a", "b"))

    for files in ((first, second), (first, first)):
        assert main(["conformance", *files]) == 2
        assert capsys.readouterr().err == (
            f"callout conformance: {files[1]}:1: the id 'fbs-0001' is also in {files[0]}:1\n"
        )


@pytest.mark.parametrize(("options", "failed"), [(["--fail-fast"], 1), (["--max-failures", "2"], 2)])
def test_a_run_can_end_early(
    options: list[str], failed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After so many failures nothing more is replayed, and the last line says so."""
    path = write(tmp_path / "s", *(wrong(f"s{number}") for number in range(5)))

    assert main(["conformance", *options, path]) == 1
    assert capsys.readouterr().out.endswith(f"0 passed, {failed} failed, {5 - failed} not run (--max-failures)\n")


def test_tags_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--list-tags prints each tag with its number of scenarios, and replays nothing."""
    path = write(tmp_path / "s", wrong("a", tags=["x", "long-tag"]), wrong("b", tags=["x"]))

    assert main(["conformance", "--list-tags", path]) == 0
    assert capsys.readouterr().out == "long-tag  1\nx         2\n"


def test_scenarios_of_both_apis_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """--show finds an id in the recordings of either kernel."""
    assert main(["conformance", "--show", "fbs-0001", "--show", "ls-000000"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("fbs-0001: ")
    assert "\n\nls-000000: " in out


def test_json_is_all_that_is_on_standard_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], own: Callable[[str], str]
) -> None:
    """What an implementation prints, when it is imported and when it runs, goes to standard error."""
    module = own(
        "from callout.conformance import builtin\nprint('imported')\n"
        "def make(scenario):\n    print('made')\n    return builtin(scenario)\n"
    )

    assert main(["conformance", "--impl", f"{module}:make", "--json", write(tmp_path / "s", one_scenario())]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["passed"] == 1
    assert captured.err == "imported\nmade\n"


@pytest.mark.parametrize(
    "prints",
    [
        "os.write(1, b'noise\\n')",
        "os.system('echo noise')",
        "subprocess.run(['echo', 'noise'])",
        pytest.param(
            "ctypes.CDLL(None).puts(b'noise')",
            marks=pytest.mark.skipif(sys.platform == "win32", reason="finds no C library in this way"),
        ),
    ],
)
def test_json_is_alone_on_the_descriptor_too(tmp_path: Path, own: Callable[[str], str], prints: str) -> None:
    """What an implementation prints past sys.stdout, itself or by a child process, goes to standard error."""
    module = own(
        "import ctypes, os, subprocess\nfrom callout.conformance import builtin\n"
        f"def make(scenario):\n    {prints}\n    return builtin(scenario)\n"
    )
    path = write(tmp_path / "s", one_scenario())
    done = subprocess.run(
        [sys.executable, "-m", "callout", "conformance", "--json", "--impl", f"{module}:make", path],
        capture_output=True,
        text=True,
        check=False,
    )

    assert json.loads(done.stdout)["passed"] == 1
    assert done.stderr == "noise\n"


def test_without_standard_error_what_is_printed_goes_nowhere(tmp_path: Path, own: Callable[[str], str]) -> None:
    """JSON is alone on standard output also where there is no standard error."""
    module = own(
        "import os\nfrom callout.conformance import builtin\n"
        "def make(scenario):\n    os.system('echo noise')\n    print('noise')\n    return builtin(scenario)\n"
    )
    path = write(tmp_path / "s", one_scenario())
    command = [sys.executable, "-m", "callout", "conformance", "--json", "--impl", f"{module}:make", path]
    done = subprocess.run(["/bin/sh", "-c", 'exec "$@" 2>&-', "sh", *command], stdout=subprocess.PIPE, check=False)

    assert json.loads(done.stdout)["passed"] == 1


def test_junit_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--junit writes a test case for each replay, beside the text."""
    path = write(tmp_path / "s", one_scenario(), wrong("other"))

    assert main(["conformance", "--orders", "1", "--junit", str(tmp_path / "junit.xml"), path]) == 1
    suite = ET.parse(tmp_path / "junit.xml").getroot()[0]  # noqa: S314 - our own
    assert (suite.get("tests"), suite.get("failures")) == ("4", "2")
    assert "[seed 1]" in str(suite[1].get("name"))
    assert capsys.readouterr().out.endswith("2 passed, 2 failed\n")


def test_a_trace_file_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--junit with the name of a trace file is an error, and the file is as it was."""
    path = write(tmp_path / "s", one_scenario())

    assert main(["conformance", "--junit", path, path]) == 2
    assert "that is one of the trace files" in capsys.readouterr().err
    assert json.loads(Path(path).read_text())["id"] == "fbs-0001"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("\n1 / 0\n", "ZeroDivisionError: division by zero at {0}.py:2 in <module>()"),
        ("def f(:\n", "SyntaxError: invalid syntax ({0}.py, line 1) at {0}.py:1"),
        ("raise SystemExit(4)\n", "SystemExit: 4 at {0}.py:1 in <module>()"),
        ("import no_such_module\n", "ModuleNotFoundError: No module named 'no_such_module' at {0}.py:1 in <module>()"),
        ("raise ValueError('x' * 100_000)\n", "ValueError: xxxxx"),
    ],
)
def test_a_module_that_cannot_be_imported_is_one_line(
    code: str, reason: str, own: Callable[[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The error names the exception, and the place in the reader's own file."""
    module = own(code)

    assert main(["conformance", "--impl", f"{module}:make"]) == 2
    err = capsys.readouterr().err
    assert f"importing {module} raised {reason.format(module)}" in err
    assert err.count("\n") == 1
    assert len(err) < 600


def test_ctrl_c_prints_the_counts_so_far(
    tmp_path: Path, own: Callable[[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The status is 130; what was done is reported, to the files, too."""
    module = own(
        "import os, signal\nfrom callout.conformance import builtin\n"
        "def make(scenario):\n"
        "    if scenario.id == 'third':\n        os.kill(os.getpid(), signal.SIGINT)\n        signal.pause()\n"
        "    return builtin(scenario)\n"
    )
    path = write(tmp_path / "s", one_scenario(), wrong("second"), scenario_like("third"), scenario_like("fourth"))
    command = ["-m", "callout", "conformance", "--impl", f"{module}:make", "--junit", "junit.xml", path]
    # A shell may have it ignored, and a child inherits that.
    code = f"import signal, runpy, sys; signal.signal(2, signal.default_int_handler); sys.argv = {command[1:]!r}; "
    done = subprocess.run(
        [sys.executable, "-c", code + "runpy.run_module('callout', run_name='__main__')"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 130
    assert done.stderr == ""
    assert done.stdout.endswith("1 passed, 1 failed, 2 not run (interrupted)\n")
    assert ET.parse(tmp_path / "junit.xml").getroot().get("tests") == "2"  # noqa: S314 - our own


def interrupted(path: Path) -> Iterator[Any]:
    """Be a trace file in the middle of which Ctrl-C comes."""
    yield 1, next(load(path))
    raise KeyboardInterrupt


def test_ctrl_c_while_files_are_loaded_prints_counts_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The status is 130 and the counts are 0, in every form of the report; where there are none, a line says why."""
    path = write(tmp_path / "s", one_scenario())
    junit = tmp_path / "junit.xml"
    monkeypatch.setattr("callout.conformance._main.numbered", interrupted)

    assert main(["conformance", path]) == 130
    assert capsys.readouterr().out == "0 passed, 0 failed (interrupted)\n"

    assert main(["conformance", "--json", "--junit", str(junit), path]) == 130
    report = json.loads(capsys.readouterr().out)
    assert (report["interrupted"], report["passed"], report["scenarios"]) == (True, 0, [])
    assert ET.parse(junit).getroot().get("tests") == "0"  # noqa: S314 - our own

    for looks in (["--list-tags"], ["--show", "fbs-0001"]):
        assert main(["conformance", *looks, path]) == 130
        captured = capsys.readouterr()
        assert (captured.out, captured.err) == ("", "callout conformance: interrupted\n")


def test_ctrl_c_while_an_implementation_is_imported_prints_counts_too(
    tmp_path: Path, own: Callable[[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The status is 130, and everything counts as not run."""
    module = own("raise KeyboardInterrupt\n")

    assert main(["conformance", "--impl", f"{module}:make", write(tmp_path / "s", one_scenario())]) == 130
    assert capsys.readouterr().out == "0 passed, 0 failed, 1 not run (interrupted)\n"


def test_ctrl_c_while_the_command_is_imported_is_one_line() -> None:
    """The command's own modules are imported late; an interrupt then is no traceback."""
    code = (
        "import sys\nfrom callout.cli import main\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'callout.conformance': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Finder())\nsys.exit(main(['conformance']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (130, "", "callout: interrupted\n")


@pytest.mark.parametrize("options", [["--json"], [], ["--list-tags"]])
def test_standard_output_that_is_closed_is_one_line(tmp_path: Path, options: list[str]) -> None:
    """As in ``callout conformance --json >&-``: status 2 and a reason, as for other output that cannot be written."""
    command = [sys.executable, "-m", "callout", "conformance", *options, write(tmp_path / "s", one_scenario())]
    done = subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" >&-', "sh", *command], stderr=subprocess.PIPE, text=True, check=False
    )

    assert done.returncode == 2
    assert done.stderr == "callout: cannot write to standard output: it is closed\n"


def test_a_pipe_that_is_closed_ends_the_command_quietly() -> None:
    """As in ``callout conformance --list-tags | head -1``: no traceback, and the status that shells give it."""
    command = subprocess.Popen(
        [sys.executable, "-m", "callout", "conformance", "--list-tags"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert command.stdout is not None
    assert command.stderr is not None
    command.stdout.close()
    with command.stderr:
        err = command.stderr.read()

    assert command.wait() == 141
    assert err == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
def test_output_that_cannot_be_written_is_one_line() -> None:
    """A full disk is an error with a reason, not a traceback."""
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = subprocess.run(
            [sys.executable, "-m", "callout", "conformance", "--list-tags"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )

    assert done.returncode == 2
    assert done.stderr.startswith("callout: cannot write to standard output: ")
    assert done.stderr.count("\n") == 1


def test_titles_are_printed_whatever_the_encoding(tmp_path: Path) -> None:
    """A character that standard output cannot encode is escaped, and so is what would move a terminal's cursor."""
    path = write(tmp_path / "s", scenario_like("a", title="é\x1b[31m\u2028\U0001f600"))
    done = subprocess.run(
        [sys.executable, "-m", "callout", "conformance", "--show", "a", path],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )

    assert done.returncode == 0
    assert done.stdout.splitlines()[0] == r"a: \xe9\x1b[31m\u2028\U0001f600"


def test_a_bar_is_drawn_on_a_terminal_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It shows how far the run is, and is gone at the end."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    path = write(tmp_path / "s", *(scenario_like(f"s{number}") for number in range(4)))
    monkeypatch.setattr("callout._terminal.REDRAW", 0)
    monkeypatch.setattr("callout._terminal.console_for", lambda stream: None)  # as without rich
    monkeypatch.delenv("TERM", raising=False)
    assert main(["conformance", path]) == 0
    assert capsys.readouterr().err == ""

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert main(["conformance", path]) == 0
    drawn = terminal.getvalue()
    assert "\r[##########          ] 2/4, 0 failed; s2\x1b[K" in drawn
    assert drawn.endswith("\r\x1b[K")


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


@pytest.mark.parametrize(
    ("argv", "status", "told"),
    [
        (["conformance", "--impl", "freebsd", "--platform", "trio", "--id", "fn15-0001"], 0, " passed, 0 failed"),
        (["bench", "--list"], 0, "workloads, and their figures:"),
        (["bench", "--quick"], 2, "callout: callout bench needs psutil: pip install 'callout[bench]'"),
        (["explore", "--list"], 2, "pip install"),
        (["soak", "--seconds", "0.1"], 0, "all is accounted for"),
        (["completion", "zsh"], 2, "callout: callout completion needs argcomplete: pip install 'callout[cli]'"),
    ],
    ids=lambda each: each[0] if isinstance(each, list) else "",
)
def test_without_any_extra_the_others_work(argv: list[str], status: int, told: str) -> None:
    """What a command needs is asked for when that command runs, and named then."""
    code = (
        "import sys\n"
        "for name in ('argcomplete', 'greenlet', 'matplotlib', 'psutil', 'pytest', 'rich'):\n"
        "    sys.modules[name] = None\n"
        "from callout.cli import main\n"
        f"sys.exit(main({argv!r}))\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == status, done.stderr
    assert told in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


# -- usage, signals, shells ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["conformance", "demo", "bench", "explore", "soak", "top", "completion"])
def test_wrong_arguments_show_how_that_command_is_used(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The usage is the subcommand's, and not the list of commands; the status is 2."""
    words = [command, "--no-such-option", *(["bash"] if command == "completion" else [])]
    with pytest.raises(SystemExit) as info:
        main(words)
    err = capsys.readouterr().err

    assert info.value.code == 2
    assert err.startswith(f"usage: callout {command} ")
    assert err.endswith(f"callout {command}: error: unrecognized arguments: --no-such-option\n")


def test_a_command_that_there_is_not_shows_those_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    """Here the usage is that of the whole."""
    with pytest.raises(SystemExit) as info:
        main(["soaked"])
    err = capsys.readouterr().err

    assert info.value.code == 2
    assert err.startswith("usage: callout [-h]")
    assert "soak" in err


@pytest.mark.parametrize("ignored", [False, True], ids=["", "SIGINT-ignored"])
def test_sigterm_is_as_clean_as_ctrl_c(tmp_path: Path, own: Callable[[str], str], ignored: bool) -> None:
    """The report has the counts, and the status is 143; also where a shell has SIGINT ignored."""
    module = own(
        "import os, signal\nfrom callout.conformance import builtin\n"
        "def make(scenario):\n"
        "    if scenario.id == 'third':\n        os.kill(os.getpid(), signal.SIGTERM)\n        signal.pause()\n"
        "    return builtin(scenario)\n"
    )
    path = write(tmp_path / "s", one_scenario(), wrong("second"), scenario_like("third"), scenario_like("fourth"))
    command = ["callout", "conformance", "--impl", f"{module}:make", path]
    handler = "SIG_IGN" if ignored else "default_int_handler"
    code = (
        f"import signal, runpy, sys; signal.signal(signal.SIGINT, signal.{handler}); sys.argv = {command!r}; "
        "runpy.run_module('callout', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (143, "")
    assert done.stdout.endswith("1 passed, 1 failed, 2 not run (interrupted)\n")


def test_the_handler_of_sigterm_is_there_for_the_command_only(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Afterwards the signal does what it did before; and a handler of the program's own is left alone all the time."""
    seen: list[object] = []

    def look(args: argparse.Namespace) -> int:
        seen.append(signal.getsignal(signal.SIGTERM))
        return 0

    monkeypatch.setattr("callout.demo.main", look)
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        main(["demo"])
        assert callable(seen[0])
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL

        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        main(["demo"])
        assert seen[1] is signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_of_a_shell_names_the_command(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What is printed is for the shell to run."""
    pytest.importorskip("argcomplete")

    assert main(["completion", shell]) == 0
    assert re.search(r"complete .*\bcallout\b", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("callout so", {"soak "}),
        ("callout soak --impl f", {"freebsd "}),
        ("callout explore --fix", {"--fixed "}),
        ("callout conformance --platform ", {"trio", "virtual"}),
    ],
)
def test_a_line_is_completed(line: str, completed: set[str], tmp_path: Path) -> None:
    """Commands, options and what they take are completed as argcomplete does it."""
    pytest.importorskip("argcomplete")
    file = tmp_path / "completed"
    asked = {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(file),
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
        "CALLOUT_PURE": "1",
    }
    subprocess.run([sys.executable, "-m", "callout"], env=os.environ | asked, check=False)

    assert set(file.read_text("utf-8").split("\n")) == completed
