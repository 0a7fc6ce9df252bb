"""``callout bench``: what it makes of figures, how it takes them, and what it says to a wrong command line.

No figure is judged here. Where the extra is not installed only the first part runs.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from callout.bench import _command, _rounds
from callout.bench._peer import PEERS, Entry, wants
from callout.bench._rounds import Plan, Sample
from callout.bench._summary import Cell, summarize
from callout.bench._workloads import QUANTILES, ROWS, WORKLOADS, Load
from callout.cli import main

PLAN = Plan(("callout", "asyncio", "rloop"), (1000,), ("arm",), 3, 1)
Run = Callable[..., tuple[int, str, str]]


def samples(**figures: list[float]) -> list[Sample]:
    """Return a sample for each figure, by peer."""
    return [
        Sample(turn, 1000, peer, {"arm": value}) for peer, each in figures.items() for turn, value in enumerate(each)
    ]


def test_a_ratio_is_the_median_of_those_within_a_round() -> None:
    """Not the ratio of the medians: a slow round is slow for all."""
    cells = {cell.peer: cell for cell in summarize(PLAN, samples(asyncio=[100, 1000, 300], callout=[50, 1000, 100]))}

    assert (cells["callout"].value, cells["callout"].ratio) == (100, 2.0)
    assert (cells["asyncio"].value, cells["asyncio"].ratio) == (300, 1.0)
    assert "rloop" not in cells


def test_a_round_that_the_base_has_not_ended_has_no_ratio() -> None:
    """After Ctrl-C the last round is there in part."""
    cells = {cell.peer: cell for cell in summarize(PLAN, samples(asyncio=[100], callout=[50, 10]))}

    assert (cells["callout"].value, cells["callout"].ratio) == (30, 2.0)


def test_a_figure_of_nothing_has_no_ratio() -> None:
    """Memory may not grow at all."""
    cells = {cell.peer: cell for cell in summarize(PLAN, samples(asyncio=[100], callout=[0]))}

    assert (cells["callout"].value, cells["callout"].ratio) == (0, None)


def test_the_best_is_that_of_the_ratio_that_is_shown() -> None:
    """Also where another has the least median, in rounds that were quick for all; nothing is better than anything."""
    figures: dict[str, list[float]] = {"asyncio": [100, 400, 100], "callout": [50, 40, 50], "rloop": [45, 200, 60]}
    cells = {cell.peer: cell for cell in summarize(PLAN, samples(**figures))}
    assert (cells["callout"].ratio, cells["rloop"].ratio) == (2.0, 2.0)
    assert max(cells.values(), key=Cell.rank).peer == "callout"
    figures["rloop"] = [40, 100, 60]
    cells = {cell.peer: cell for cell in summarize(PLAN, samples(**figures))}
    assert cells["rloop"].value > cells["callout"].value
    assert (cells["callout"].ratio, cells["rloop"].ratio) == (2.0, 2.5)
    assert max(cells.values(), key=Cell.rank).peer == "rloop"
    figures["callout"] = [0, 0, 0]
    cells = {cell.peer: cell for cell in summarize(PLAN, samples(**figures))}
    assert max(cells.values(), key=Cell.rank).peer == "callout"


def test_each_round_begins_with_another_peer() -> None:
    """And each has every peer and every size once."""
    plan = Plan(("a", "b", "c"), (1, 2), ("arm",), 3, 1)

    steps = list(plan.steps())

    assert [peer for turn, size, peer in steps if size == 1] == ["a", "b", "c", "b", "c", "a", "c", "a", "b"]
    assert len(set(steps)) == len(steps) == 18


def test_every_workload_says_what_its_figures_are() -> None:
    """A row for each, and no name twice."""
    names = [row.name for rows in ROWS.values() for row in rows]

    assert list(WORKLOADS) == list(ROWS)
    assert len(set(names)) == len(names)


# -- with the extra ------------------------------------------------------------------------------------------------


@pytest.fixture
def bench(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run ``callout bench`` with these arguments; return its status, and what it has written."""
    for extra in ("rich", "psutil", "matplotlib"):
        pytest.importorskip(extra)

    def run(*argv: str) -> tuple[int, str, str]:
        status = main(["bench", *argv])
        told = capsys.readouterr()
        return status, told.out, told.err

    return run


PROCESS_PEERS = [pytest.param(entry, id=entry.name) for entry in PEERS]


@pytest.mark.parametrize("entry", PROCESS_PEERS)
def test_every_peer_runs_every_workload(entry: Entry, bench: Run) -> None:
    """In a process of its own, with every figure that its rows promise."""
    if wants(entry):
        pytest.skip(wants(entry))
    plan = Plan((entry.name,), (200,), tuple(WORKLOADS), 1, 200)

    done = _rounds.sample(plan, 0, 200, entry.name)

    assert done.error == ""
    assert set(done.figures) == {row.name for rows in ROWS.values() for row in rows}
    assert all(done.figures[row.name] > 0 for row in ROWS["arm"] + ROWS["expire"])
    late = [done.figures[name] for name in QUANTILES]
    assert late == sorted(late)


def test_a_run_prints_a_table_and_writes_files(bench: Run, tmp_path: Path) -> None:
    """The table, every sample as JSON, and the picture."""
    files = [tmp_path / "figures.json", tmp_path / "figures.svg"]
    peers = ["--peers", "asyncio,callout", "--workloads", "cancel,arm", "--sizes", "50", "--rounds", "2"]

    status, out, err = bench(*peers, "--json", str(files[0]), "--svg", str(files[1]))

    assert (status, err) == (0, "")
    assert "50 timers" in out
    assert all(name in out for name in ("arm, ns", "cancel, ns", "cancel-random, ns", "asyncio", "callout"))
    report = json.loads(files[0].read_text())
    assert [(each["round"], each["peer"]) for each in report["samples"]] == [
        (0, "callout"),
        (0, "asyncio"),
        (1, "asyncio"),
        (1, "callout"),
    ]
    assert set(report["samples"][0]["figures"]) == {"arm", "cancel", "cancel-random"}
    assert {each["figure"] for each in report["medians"]} == {"arm", "cancel", "cancel-random"}
    assert "50 timers: the shorter the better" in files[1].read_text()


LATE = {"lateness": 12.5, "lateness-p90": 30.0, "lateness-p99": 70.5, "lateness-max": 800.0}
OLDER = {"lateness": 12.5, "lateness-p99": 70.5}


@pytest.mark.parametrize(("known", "last"), [(LATE, "800"), (OLDER, "70.5")], ids=["today", "older"])
def test_lateness_is_drawn(
    known: dict[str, float], last: str, bench: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of each peer the quantiles that were measured, in the size that is nearest to 100,000."""
    monkeypatch.setattr(_command, "sample", lambda plan, turn, size, peer: Sample(turn, size, peer, known))
    file = tmp_path / "late.svg"
    of = ["--peers", "asyncio,callout", "--workloads", "lateness", "--sizes", "5,60000,400000"]

    status, _, err = bench(*of, "--lateness-svg", str(file))
    text = file.read_text()

    assert (status, err) == (0, "")
    assert "60,000 timers pending" in text
    assert all(text.count(f">{name}<") == 1 for name in ("asyncio", "callout", "median", "99 %"))
    assert (text.count(">12.5<"), text.count(f">{last}<")) == (2, 2)
    assert (">90 %<" in text) == (">the latest<" in text) == (known is LATE)


def test_every_quantile_of_lateness_is_shown(bench: Run) -> None:
    """In the table, and in the picture, in their order."""
    from callout.bench import _plot

    assert list(_plot.MARKS) == list(QUANTILES) == [row.name for row in ROWS["lateness"]]


def test_a_peer_that_fails_is_named_and_the_others_are_measured(bench: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the last line of what it wrote; the status is 1."""

    def failing(plan: Plan, turn: int, size: int, peer: str) -> Sample:
        if peer == "asyncio":
            return Sample(turn, size, peer, error="MemoryError: no more")
        return Sample(turn, size, peer, {"arm": 1000.0})

    monkeypatch.setattr(_command, "sample", failing)

    status, out, err = bench("--peers", "asyncio,callout", "--workloads", "arm", "--sizes", "50")

    assert status == 1
    assert "asyncio, 50 timers: MemoryError: no more\n" in err
    assert "1,000" in out


def test_a_process_that_dies_says_how(bench: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it wrote last, or its status."""
    monkeypatch.setattr(sys, "executable", "false")

    done = _rounds.sample(PLAN, 0, 1000, "callout")

    assert (done.error, done.spared) == ("ended with status 1", False)


def test_what_is_measured_is_what_was_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Not what lies in the folder in which it is started: in a clone that is not compiled."""
    (tmp_path / "callout").mkdir()
    (tmp_path / "callout" / "__init__.py").write_text("raise SystemExit('another one')\n")
    monkeypatch.chdir(tmp_path)

    assert _rounds.sample(PLAN, 0, 50, "callout").error == ""


def test_a_peer_is_spared_what_it_is_not_made_for(bench: Run) -> None:
    """A task for each of a million timers: that is said, and no failure."""
    status, _, err = bench("--peers", "trio", "--workloads", "arm", "--sizes", "1000000")

    assert status == 0
    assert "trio, 1,000,000 timers: not asked for more than 10,000 timers\n" in err


def test_ctrl_c_shows_what_was_measured(bench: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On the terminal, and in the file; the status is 130."""
    turns = iter([Sample(0, 50, "callout", {"arm": 1000.0})])

    def interrupted(plan: Plan, turn: int, size: int, peer: str) -> Sample:
        for each in turns:
            return each
        raise KeyboardInterrupt

    monkeypatch.setattr(_command, "sample", interrupted)
    file = tmp_path / "figures.json"

    status, out, err = bench("--workloads", "arm", "--sizes", "50", "--json", str(file))

    assert status == 130
    assert "interrupted" in err
    assert "1,000" in out
    assert len(json.loads(file.read_text())["samples"]) == 1


def test_without_figures_there_is_no_picture(bench: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As after a Ctrl-C before the first process of the size that it would show."""
    turns = iter([Sample(0, 5, "callout", {"arm": 1000.0} | LATE)])

    def interrupted(plan: Plan, turn: int, size: int, peer: str) -> Sample:
        for each in turns:
            return each
        raise KeyboardInterrupt

    monkeypatch.setattr(_command, "sample", interrupted)
    files = [tmp_path / "figures.svg", tmp_path / "late.svg"]

    status, out, _ = bench("--sizes", "5,100000", "--svg", str(files[0]), "--lateness-svg", str(files[1]))

    assert status == 130
    assert "1,000" in out
    assert not any(file.exists() for file in files)


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--sizes", "0"], "--sizes takes numbers from 1 to 10,000,000, not '0'"),
        (["--sizes", "1000,many"], "--sizes takes numbers from 1 to 10,000,000, not 'many'"),
        (["--rounds", "-1"], "--rounds takes numbers from 1 to 1,000, not '-1'"),
        (["--peers", "tornado"], "--peers: there is no 'tornado'; there are callout, callout-methods, callout-pure,"),
        (["--workloads", "arm,sleep"], "--workloads: there is no 'sleep'; there are memory, arm,"),
        (["--json", "/nowhere/figures.json"], "--json: cannot write /nowhere/figures.json: No such file or directory"),
        (["--svg", "/"], "--svg: cannot write /: Is a directory"),
        (["--lateness-svg", "/"], "--lateness-svg: cannot write /: Is a directory"),
        (["--lateness-svg", "x.svg", "--workloads", "arm"], "--lateness-svg shows the workload lateness, which"),
    ],
)
def test_what_cannot_be_done_is_one_error(argv: list[str], told: str, bench: Run) -> None:
    """Before anything is measured; the status is 2."""
    status, out, err = bench(*argv)

    assert (status, out) == (2, "")
    assert err.startswith(f"callout bench: {told}")
    assert err.count("\n") == 1


def test_a_peer_that_is_not_installed_is_named(bench: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """If it was asked for that is an error, which says what to install; else it is left out, and that is said."""
    monkeypatch.setattr(
        _command, "wants", lambda entry: "" if entry.name in {"callout", "asyncio"} else f"pip install {entry.needs}"
    )
    monkeypatch.setattr(_command, "sample", lambda plan, turn, size, peer: Sample(turn, size, peer, {"arm": 1.0}))

    assert bench("--peers", "rloop") == (
        2,
        "",
        "callout bench: the peer rloop is not installed: pip install rloop\n",
    )
    status, _, err = bench("--workloads", "arm", "--sizes", "5", "--rounds", "1")
    assert status == 0
    assert err.startswith(
        "not installed, and left out: callout-methods, callout-pure, callout-mutex, callout-2cpus, callout-linux,"
    )


def test_list_names_all(bench: Run) -> None:
    """Peers, workloads and figures."""
    status, out, _ = bench("--list")

    assert status == 0
    assert all(entry.name in out for entry in PEERS)
    assert all(row.name in out for rows in ROWS.values() for row in rows)


@pytest.mark.parametrize("missing", ["rich", "psutil", "matplotlib"])
def test_without_the_extra_it_says_what_to_install(
    missing: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line, status 2."""
    for other in ("rich", "psutil", "matplotlib"):
        pytest.importorskip(other)
    monkeypatch.delitem(sys.modules, "callout.bench._plot", raising=False)
    for module in [missing, *(each for each in sys.modules if each.startswith(f"{missing}."))]:
        monkeypatch.setitem(sys.modules, module, None)

    assert main(["bench", "--quick"]) == 2
    assert capsys.readouterr().err == f"callout: callout bench needs {missing}: pip install 'callout[bench]'\n"


def test_passes_make_up_for_few_timers() -> None:
    """A figure is taken from enough calls."""
    assert len(Load(1000, 50_000).passes()) == 50
    assert len(Load(1_000_000, 50_000).passes()) == 1


def test_a_file_that_cannot_be_written_in_the_end_is_named(bench: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no room any more, for instance; the table was shown."""
    monkeypatch.setattr(_command, "sample", lambda plan, turn, size, peer: Sample(turn, size, peer, {"arm": 1.0}))
    status, out, err = bench("--workloads", "arm", "--sizes", "5", "--rounds", "1", "--json", "/dev/full")

    assert status == 2
    assert "arm" in out
    assert "callout bench: cannot write /dev/full: No space left on device; say another file" in err


def test_a_file_without_a_name_is_refused(bench: Run) -> None:
    """As an empty variable of a shell would have it."""
    status, _, err = bench("--workloads", "arm", "--sizes", "5", "--json", "")

    assert status == 2
    assert err == "callout bench: --json: say the name of a file after it\n"
