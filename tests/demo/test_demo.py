"""``callout demo``, over real sockets, and its teardowns under every schedule."""

from __future__ import annotations

import argparse
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Final, TextIO

import pytest

from callout import UseAfterFree, cli
from callout.demo import _pcb, add_arguments, main
from callout.demo._options import Options, options_of
from callout.demo._pcb import Pcb
from callout.demo._service import Service
from callout.explore import Violation, explore
from callout.testing import VirtualSMP

TEARDOWNS: Final = ("drain-async", "drain", "stop-and-free")
SMALL: Final = ("--connections", "20", "--seconds", "0.5")
KEYS: Final = {
    "allocated",
    "armed",
    "callback_after_free",
    "closed_by",
    "completed",
    "connections",
    "cpus",
    "descriptors",
    "drained",
    "early",
    "errors",
    "fired",
    "freed",
    "interrupted",
    "lateness_ms",
    "messages",
    "most_connections",
    "opened",
    "probes",
    "promised",
    "ramp_seconds",
    "rearmed",
    "reasons",
    "refused",
    "reports",
    "resent",
    "seconds",
    "seed",
    "staged",
    "stopped",
    "teardown",
    "threads",
    "use_after_free",
    "verdict",
}


def parse(*words: str) -> argparse.Namespace:
    """Parse a command line of the demo."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(words)


def command(*words: str) -> list[str]:
    """Return the command line of a demo in a process of its own."""
    return [sys.executable, "-m", "callout", "demo", *words]


# -- runs that are clean --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("teardown", ["drain-async", "drain"])
@pytest.mark.parametrize("cpus", ["1", "2"])
def test_a_correct_teardown_ends_clean(capsys: pytest.CaptureFixture[str], teardown: str, cpus: str) -> None:
    """With either correct teardown the status is 0, and as many control blocks were freed as allocated."""
    status = main(parse(*SMALL, "--cpus", cpus, "--teardown", teardown, "--seed", "7"))
    out, err = capsys.readouterr()

    assert status == 0, out
    assert "\nCLEAN: every control block was freed once" in out
    assert re.search(r"^control blocks +(\d+) allocated, \1 freed$", out, re.MULTILINE)
    assert re.search(r"^threads +(\d+) before, \1 after$", out, re.MULTILINE)
    assert re.search(r"^run +\d cpus?, seed 7, ", out)
    assert err == ""


def test_json_is_one_object_with_every_figure(capsys: pytest.CaptureFixture[str]) -> None:
    """``--json`` prints one object on one line and nothing else, and its figures agree with each other."""
    status = main(parse(*SMALL, "--json"))
    out, err = capsys.readouterr()
    report = json.loads(out)

    assert (status, err, out.count("\n")) == (0, "", 1)
    assert report.keys() == KEYS
    assert report["verdict"] == "clean"
    assert report["allocated"] == report["freed"] == report["opened"] == sum(report["closed_by"].values()) >= 20
    assert report["drained"] == 3 * report["opened"]
    assert report["promised"] == report["completed"]
    assert report["fired"] > 0
    assert report["rearmed"] > 0
    assert report["early"] == report["use_after_free"] == report["callback_after_free"] == 0
    assert 0 <= report["lateness_ms"]["p50"] <= report["lateness_ms"]["p99"] <= report["lateness_ms"]["max"]
    assert report["threads"]["before"] >= report["threads"]["after"]  # one that trio keeps for a while may have ended
    assert report["descriptors"]["before"] == report["descriptors"]["after"]


def test_every_kind_of_teardown_happens(capsys: pytest.CaptureFixture[str]) -> None:
    """Clients, the server and the idle timer each tear connections down."""
    main(parse("--connections", "40", "--seconds", "1", "--json"))
    report = json.loads(capsys.readouterr().out)

    assert all(report["closed_by"][who] > 0 for who in ("client", "server", "timer")), report["closed_by"]


def test_it_may_run_in_any_thread(capsys: pytest.CaptureFixture[str]) -> None:
    """Where signals cannot be taken it runs all the same."""
    results = list[int]()
    thread = threading.Thread(target=lambda: results.append(main(parse("--connections", "2", "--seconds", "0.1"))))
    thread.start()
    thread.join()

    assert results == [0], capsys.readouterr().out


# -- the bug ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cpus", ["1", "2"])
def test_stop_and_free_is_caught(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, cpus: str
) -> None:
    """Staged, stop-and-free always ends with status 1 and a report with all its parts, and says that it was staged."""
    status = main(parse(*SMALL, "--cpus", cpus, "--teardown", "stop-and-free"))
    out, err = capsys.readouterr()
    [report] = re.findall(r"^USE AFTER FREE: (.*(?:\n  .*)*)", out, re.MULTILINE)
    lines = report.split("\n  ")

    assert status == 1
    assert re.fullmatch(
        r"pcb \d+, generation \d+ \(Pcb\) was used after it was freed: its lock 'pcb of connection \d+' was acquired",
        lines[0],
    )
    assert re.match(r"used by softclock of cpu \d at .*softclock.py:\d+ in _get_lock\(\)$", lines[1])
    assert re.match(r"freed by task .* in Stage.free\(\) <- Service.free\(\) <- StopAndFree.finish\(\)$", lines[2])
    assert re.match(r"allocated by task .* in Site._serve\(\)", lines[3])
    assert re.match(r"callout '(\w+)', function \1_timeout, armed at .*_pcb.py:\d+ in \w", lines[4])
    assert "\nstaged: softclock of cpu " in out
    assert '"softclock, between dequeue and lock"' in out
    assert "\nFAILED: 1 use after free" in out
    assert "callout.callback_error" in caplog.text
    assert err == ""


def test_without_the_stage_it_says_what_it_saw(capsys: pytest.CaptureFixture[str]) -> None:
    """``--no-stage`` ends with 1 if the race showed by itself, else with 0 and a sentence that says it did not."""
    status = main(parse(*SMALL, "--teardown", "stop-and-free", "--no-stage"))
    out = capsys.readouterr().out

    assert "\nstaged:" not in out
    assert ("the race did not show this time" in out) is (status == 0)
    assert ("the race showed by itself" in out) is (status == 1)


def close_beside_a_timer(vm: VirtualSMP, teardown: str) -> None:
    """Close a connection of the demo, with its own teardown, while its timers may be running."""
    service = Service(Options(2, 1, 1.0, 0, json=False, teardown=teardown, staged=False, trace=None, top=False))
    with socket.socket() as sock:
        pcb = service.slab.alloc(Pcb, service, 1, sock, lambda: None)
        with pcb.lock:
            pcb.close("server")
        vm.run(lambda: service.teardown.finish(pcb))
        vm.settle()
    figures = service.total()

    assert not service.slab.leaks()
    assert figures.promised == figures.completed


@pytest.fixture
def probes_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have keep-alive fire once: where a timer may fire at any moment, it would do so for ever."""
    monkeypatch.setattr(_pcb, "keepalive_timeout", lambda pcb: pcb.closed_by)


@pytest.mark.usefixtures("probes_end")
def test_the_pattern_survives_every_schedule() -> None:
    """No schedule with at most one preemption, timers firing at any moment, uses or leaks a control block."""
    certificate = explore(lambda vm: close_beside_a_timer(vm, "drain-async"), bound=1)

    assert certificate.exhausted
    assert certificate.schedules > 100


@pytest.mark.usefixtures("probes_end")
def test_the_wrong_teardown_does_not() -> None:
    """The explorer finds the use after free of stop-and-free without any stage."""
    with pytest.raises(Violation) as caught:
        explore(lambda vm: close_beside_a_timer(vm, "stop-and-free"), bound=1)

    assert isinstance(caught.value.__cause__, UseAfterFree)


# -- Ctrl-C, and the terminal -----------------------------------------------------------------------------------------


def interrupted(process: subprocess.Popen[str], out: TextIO, until: str) -> str:
    """Read what *process* says until a line contains *until*, send it a Ctrl-C, and return the rest."""
    text = ""
    while until not in text:
        text += out.read(1)
    process.send_signal(signal.SIGINT)
    rest = ""
    try:
        while piece := out.read(1):
            rest += piece
    except OSError:  # the other end of a terminal was closed
        pass
    return rest


@pytest.mark.parametrize(("connections", "until"), [("400", "conn "), ("5", "conn 5 ")], ids=["ramp-up", "all up"])
def test_ctrl_c_ends_it_with_the_table(connections: str, until: str) -> None:
    """After Ctrl-C, whenever it comes, everything is freed, the table is printed, and the status is 130."""
    terminal, inner = pty.openpty()
    with (
        subprocess.Popen(
            command("--connections", connections, "--seconds", "600"),
            stdin=inner,
            stdout=inner,
            stderr=inner,
            text=True,
        ) as process,
        os.fdopen(terminal, encoding="utf-8", newline="") as out,
    ):
        os.close(inner)
        rest = interrupted(process, out, until)

    assert process.returncode == 130, rest
    assert "interrupted; CLEAN" in rest
    assert re.search(r"control blocks +(\d+) allocated, \1 freed", rest)
    assert "Traceback" not in rest


def test_the_live_line_is_for_terminals_only(capsys: pytest.CaptureFixture[str]) -> None:
    """Into a pipe goes the table alone, without carriage returns and escape sequences."""
    done = subprocess.run(command("--connections", "2", "--seconds", "0.3"), capture_output=True, text=True, check=True)

    assert done.stdout.startswith("run  ")
    assert not set("\r\x1b") & set(done.stdout)


# -- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--cpus", "0"), "CPUs must be a whole number from 1"),
        (("--cpus", "two"), "CPUs must be a whole number from 1"),
        (("--connections", "-5"), "connections must be a whole number from 1"),
        (("--seconds", "0"), "seconds above 0"),
        (("--seconds", "nan"), "seconds above 0"),
        (("--seconds", "inf"), "seconds above 0"),
        (("--seed", "x"), "invalid int value"),
        (("--teardown", "later"), "invalid choice"),
    ],
)
def test_bad_options_are_refused(capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str) -> None:
    """Each bad value is one clear error and status 2, before anything runs."""
    with pytest.raises(SystemExit) as caught:
        cli.main(["demo", *words])
    out, err = capsys.readouterr()

    assert (caught.value.code, out) == (2, "")
    assert said in err


def test_no_stage_needs_something_to_stage(capsys: pytest.CaptureFixture[str]) -> None:
    """``--no-stage`` with a correct teardown is an error with status 2."""
    status = cli.main(["demo", "--no-stage"])

    assert status == 2
    assert "--teardown stop-and-free" in capsys.readouterr().err


LIMITED: Final = """
import resource, sys
from callout.cli import main
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
status = main(["demo", "--connections", "{connections}", "--seconds", "0.1"])
print(resource.getrlimit(resource.RLIMIT_NOFILE))
sys.exit(status)
"""


def limited(soft: int, hard: int, connections: int) -> subprocess.CompletedProcess[str]:
    """Run the demo in a process with these limits of descriptors."""
    script = LIMITED.format(soft=soft, hard=hard, connections=connections)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)


def test_too_few_descriptors_are_explained() -> None:
    """If the hard limit is too low, one error names the number of connections possible, and that many are."""
    done = limited(100, 200, 200)
    [possible] = re.findall(r"at most (\d+) connections are possible", done.stderr)

    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert limited(100, 200, int(possible)).returncode == 0
    assert limited(100, 200, int(possible) + 1).returncode == 2


def test_the_soft_limit_is_raised_and_put_back() -> None:
    """A soft limit that is too low is raised for the run, and as it was afterwards."""
    done = limited(64, 4096, 100)

    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("(64, 4096)\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
def test_a_trace_that_cannot_be_written_is_one_line_after_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    """The run was made, and its figures are told."""
    assert cli.main(["demo", *SMALL, "--trace", "/dev/full"]) == 2
    out, err = capsys.readouterr()

    assert "CLEAN: every control block was freed once" in out
    assert err == "callout demo: --trace: '/dev/full' cannot be written: No space left on device\n"


def test_a_seed_is_made_up_if_none_is_given() -> None:
    """Two runs without ``--seed`` have different seeds, which the report names."""
    assert options_of(parse()).seed != options_of(parse()).seed


def test_the_demo_uses_what_users_can_use() -> None:
    """The demo imports nothing private of the package, but for the stall point and what writes to terminals, files."""
    files = Path(sys.modules["callout.demo"].__path__[0]).glob("*.py")
    imports = {
        line
        for file in files
        for line in re.findall(r"^from (callout\S*) import", file.read_text("utf-8"), re.MULTILINE)
    }

    assert imports == {"callout", "callout._files", "callout._terminal", "callout.testing"}
