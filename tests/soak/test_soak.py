"""``callout soak``: it is clean, its ledger finds what was planted, and it ends when it is told to."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from callout import CALLOUT_REMOVED, Callout, ResetResult, callout_dequeue, callout_reset, cli, open_callouts
from callout.soak import _calls, _command, _freebsd, _ledger, _round
from callout.soak._faults import FAULTS, can_exhaust, few_descriptors
from callout.soak._figures import Figures, _bucket, _greatest
from callout.soak._ledger import MANY, Account, Arming, Completion, Ledger
from callout.soak._python import Beat, Set
from callout.soak._round import Options

SECOND = 1_000_000_000
KEYS = {
    "armed",
    "calls",
    "completions",
    "core",
    "cpus",
    "faults",
    "faults allowed",
    "fired",
    "found",
    "held",
    "implementations",
    "interrupted",
    "lateness",
    "problems",
    "refused",
    "refused or removed without a word",
    "removed",
    "replaced",
    "rounds",
    "seconds",
    "seed",
    "threads",
}


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.ns = SECOND

    def __call__(self) -> int:
        """Return the time."""
        return self.ns


@pytest.fixture
def clock() -> Clock:
    """Return the clock of ``ledger``."""
    return Clock()


@pytest.fixture
def ledger(clock: Clock) -> Ledger:
    """Return an empty ledger."""
    return Ledger(clock)


@pytest.fixture
def account(ledger: Ledger) -> Account:
    """Return the account of a callout."""
    return Account(ledger, "c")


def arm(account: Account, *, delay: int = 0, replaced: bool = False) -> None:
    """Note a call that arms."""
    account.was_armed(account.arming(delay), replaced=replaced)


# -- runs ----------------------------------------------------------------------------------------------------------


def test_two_seconds_of_everything(capsys: pytest.CaptureFixture[str]) -> None:
    """Every arming is accounted for, with every call and every fault; the report has every figure."""
    status = cli.main(["soak", "--seconds", "2", "--seed", "7", "--json"])
    report = json.loads(capsys.readouterr().out)

    assert report["problems"] == []
    assert status == 0
    assert report.keys() == KEYS
    assert report["seed"] == 7
    assert report["implementations"] == ["freebsd", "linux"]
    assert report["calls"].keys() >= {"callout_reset", "c.reset", "c.reset_at", "c.stop", "call_later", "call_at"}


@pytest.mark.parametrize("fault", [*FAULTS, "none"])
def test_one_fault_alone(fault: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With any one fault all is accounted for, and no other is injected."""
    if fault == "descriptors" and not can_exhaust():
        pytest.skip("this system has no limit of descriptors")
    status = cli.main(["soak", "--seconds", "0.5", "--fault", fault, "--json"])
    report = json.loads(capsys.readouterr().out)

    assert report["problems"] == []
    assert status == 0
    assert report["faults allowed"] == [fault] * (fault != "none")
    assert report["faults"].keys() <= {fault}


def test_the_report_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    """It names the implementation and the seed at its head, and the verdict at its end."""
    assert cli.main(["soak", "--impl", "linux", "--seconds", "0.2", "--seed", "3", "--threads", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()

    assert lines[0].startswith("callout soak: linux, ")
    assert lines[0].endswith("1 threads, seed 3")
    assert lines[-1] == "all is accounted for"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_and_sigterm_show_the_figures_so_far(
    number: signal.Signals, status: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run of a month is over at once, with the status of the signal, and says how far it came."""
    call = _freebsd.FreeBSD.call

    def interrupting(self: _freebsd.FreeBSD, worker: object) -> None:
        monkeypatch.setattr(_freebsd.FreeBSD, "call", call)
        os.kill(os.getpid(), number)

    monkeypatch.setattr(_freebsd.FreeBSD, "call", interrupting)

    assert cli.main(["soak", "--impl", "freebsd", "--seconds", str(30 * 24 * 3600)]) == status
    out = capsys.readouterr().out
    assert "\ninterrupted; these are the figures until then\n" in out
    assert "\n1 rounds in " in out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--seconds", "0"], "--seconds must be a number above 0, at most 2592000 (30 days), not '0'"),
        (["--seconds", "nan"], "--seconds must be a number above 0, at most 2592000 (30 days), not 'nan'"),
        (["--cpus", "0"], "--cpus must be a whole number from 1 to 64, not '0'"),
        (["--threads", "x"], "--threads must be a whole number from 0 to 64, not 'x'"),
        (["--seed", "-1"], f"--seed must be a whole number from 0 to {1 << 64}, not '-1'"),
        (["--fault", "none", "--fault", "raise"], "--fault none goes with no other --fault"),
    ],
)
def test_wrong_input_is_one_line(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What cannot be done is told before anything runs, with status 2."""
    assert cli.main(["soak", *words]) == 2
    assert capsys.readouterr() == ("", f"callout soak: {told}\n")


# -- what was planted ----------------------------------------------------------------------------------------------


def found_with(**patched: object) -> list[str]:
    """Return what a round of callout(9) finds whose modules have these names instead of their own."""

    async def run() -> None:
        soak = _command.Soak(Options(2, 2, 0.2, 7, frozenset()), ("freebsd",))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_ledger, "MANY", 1_000_000)
            for name, value in patched.items():
                for module in (_freebsd, _calls):
                    if hasattr(module, name):
                        patch.setattr(module, name, value)
            await soak.run()
        found.extend(soak.ledger.problems)

    found: list[str] = []
    trio.run(run)
    return found


def test_a_reset_that_arms_nothing_is_found() -> None:
    """Armings that never run, and that nothing has removed, are lost; and what is armed at the end does not run."""

    def forgets(c: Callout, ticks: int, func: object, arg: object) -> int:
        return 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_round, "LAST", 0)  # seconds that are not waited in vain
        found = found_with(callout_reset=forgets)

    assert any("armings lost (" in problem for problem in found)


def test_a_dequeue_that_removes_nothing_is_found() -> None:
    """What is said to be removed and runs all the same has ended twice."""

    def boasts(c: Callout, *, if_not_running: bool = False) -> int:
        return CALLOUT_REMOVED | callout_dequeue(c, if_not_running=if_not_running)

    assert any("more ends than armings (" in problem for problem in found_with(callout_dequeue=boasts))


@pytest.mark.parametrize(
    ("result", "problem"),
    [
        (ResetResult.REARMED, "more ends than armings ("),
        (ResetResult.REFUSED, "an arming was refused, and nothing refuses any"),
    ],
)
def test_a_method_that_lies_is_found(result: ResetResult, problem: str) -> None:
    """What a reset() says of what it has done is believed, and does not fit."""

    def lies(c: Callout, n: int, fn: Callable[[Arming], object], arming: Arming, cpu: int, flags: int) -> ResetResult:
        c.reset(n / 1000, fn, arming)
        return result

    found = found_with(RESETS={**_calls.RESETS, "c.reset": _calls.Way(lies, lambda n: 0)})

    assert any(problem in each for each in found)


def test_a_reset_that_is_early_is_found() -> None:
    """A callback that runs before its time is told with by how much."""

    def hurries(c: Callout, ticks: int, func: Callable[[Arming], object], arg: Arming) -> int:
        return callout_reset(c, 1, func, arg)

    found = found_with(callout_reset=hurries, AHEAD=(1000,))

    assert any(problem.endswith(" ns early") for problem in found)


def test_a_status_of_1_and_the_seed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What was found is told in the report, with the seed, and the status is 1."""
    monkeypatch.setattr(_freebsd, "callout_dequeue", lambda c, if_not_running: CALLOUT_REMOVED)

    assert cli.main(["soak", "--impl", "freebsd", "--seconds", "0.2", "--seed", "9", "--fault", "none"]) == 1
    out = capsys.readouterr().out
    assert "\nFOUND: round 0, freebsd: " in out
    assert out.endswith(" found, with --seed 9\n")


# -- the ledger ----------------------------------------------------------------------------------------------------


def test_a_clean_account(ledger: Ledger, account: Account) -> None:
    """What was armed and has fired, was replaced or was removed leaves nothing, and is in the figures."""
    one, two = account.arming(5), account.arming(0)
    account.was_armed(one, replaced=False)
    account.was_armed(two, replaced=True)
    account.enter(two)
    account.leave()
    arm(account)
    account.remove()
    account.settle()

    assert ledger.problems == []
    figures = ledger.figures
    assert (figures.armed, figures.replaced, figures.fired, figures.removed) == (3, 1, 1, 1)


def test_a_lost_arming_is_found(ledger: Ledger, account: Account) -> None:
    """One arming too many in the balance is one that was lost."""
    arm(account)
    account.settle()

    assert ledger.problems == ["c: 1 armings lost (1 armed, 0 replaced, 0 fired, 0 removed, 0 unsure)"]


def test_an_end_too_many_is_found(ledger: Ledger, account: Account) -> None:
    """What was removed and has fired all the same has ended twice."""
    arming = account.arming(0)
    account.was_armed(arming, replaced=False)
    account.remove()
    account.enter(arming)
    account.leave()
    account.settle()

    assert ledger.problems == ["c: 1 more ends than armings (1 armed, 0 replaced, 1 fired, 1 removed, 0 unsure)"]


def test_what_is_unsure_excuses_no_more_than_itself(ledger: Ledger, account: Account) -> None:
    """A stop that may have removed one run, and a drain that may have refused another, explain two lost ones, not
    three.
    """
    account.doubt()
    account.refusing()
    arm(account)
    account.refused_until_now()
    arm(account)
    account.settle()
    assert ledger.problems == []

    arm(account)
    account.settle()
    assert ledger.problems == ["c: 1 armings lost (3 armed, 0 replaced, 0 fired, 0 removed, 2 unsure)"]


def test_what_the_end_has_stopped_is_excused(ledger: Ledger, account: Account) -> None:
    """The end of a system stops one pending run without a word, and refuses armings; it does not stop two."""
    arm(account)
    account.settle(stopped=1)
    assert ledger.problems == []

    ledger.closing = True
    arm(account)
    account.settle(stopped=1)
    assert ledger.problems == []

    ledger.closing = False
    arm(account)
    account.settle(stopped=1)
    assert ledger.found == 1


def test_a_run_after_a_drain_is_found(ledger: Ledger, account: Account, clock: Clock) -> None:
    """What was armed before a drain, and runs after it has returned, is found; also when it was armed since."""
    old = account.arming(0)
    account.was_armed(old, replaced=False)
    clock.ns += 1
    since = account.silencing()
    account.silent(since)
    account.enter(old)
    account.leave()

    assert ledger.problems == [
        "c: its callback runs after a stop or drain, and was not armed since",
        "c: an arming has run after the stop or drain that came after it had returned",
    ]

    arm(account)
    account.enter(old)
    assert ledger.problems[2:] == [
        "c: an arming has run 2 times",
        "c: an arming has run after the stop or drain that came after it had returned",
    ]


def test_a_run_that_was_armed_during_a_drain_is_none(ledger: Ledger, account: Account, clock: Clock) -> None:
    """Of an arming that was under way when the drain began nothing is claimed."""
    arming = account.arming(0)
    since = account.silencing()
    clock.ns += 1
    account.was_armed(arming, replaced=False)
    account.silent(since)
    account.enter(arming)

    assert ledger.problems == []


def test_a_run_after_a_termination_is_found(ledger: Ledger, account: Account) -> None:
    """After it, an arming that runs or replaces is wrong; one that does nothing is counted as refused."""
    account.terminated()
    refused = account.arming(0)
    account.was_armed(refused, replaced=False)
    account.settle()
    assert ledger.problems == []
    assert ledger.figures.refused == 1

    account.enter(refused)
    arm(account, replaced=True)
    assert ledger.problems == [
        "c: its callback runs after it was terminated",
        "c: an arming after its termination has run",
        "c: an arming after its termination has replaced something",
    ]


def test_a_refusal_that_is_told_is_looked_at(ledger: Ledger, account: Account) -> None:
    """It is right while something refuses, and after a close; else it is found, as an arming after a close is."""

    def told(*, refused: bool) -> None:
        account.was_armed(account.arming(0), replaced=False, refused=refused)

    account.refusing()
    told(refused=True)
    account.refused_until_now()
    assert ledger.problems == []

    told(refused=True)
    assert ledger.problems == ["c: an arming was refused, and nothing refuses any"]

    account.close()
    told(refused=True)
    told(refused=False)
    assert ledger.problems[1:] == ["c: an arming after its termination was not refused"]


def test_a_callback_after_a_close_may_have_begun_before(ledger: Ledger, account: Account) -> None:
    """That nothing runs any more, the completion says, which is called then; what runs after that is found."""
    arming = account.arming(0)
    account.was_armed(arming, replaced=False)
    completion = Completion(account, closes=True)
    account.close()
    account.enter(arming)
    account.leave()
    assert ledger.problems == []

    completion(None)
    account.enter()
    assert ledger.problems == ["c: its callback runs after it was terminated"]


def test_a_set_has_one_balance(ledger: Ledger) -> None:
    """What was removed of any of its callouts counts for all; one removed too many is found."""
    together = Set(ledger, "set")
    together.members += [Account(ledger, name) for name in "ab"]
    for account in together.members:
        arm(account)
        arm(account, replaced=True)
    together.remove(2)
    together.settle()
    assert ledger.problems == []
    assert (ledger.figures.armed, ledger.figures.replaced, ledger.figures.removed) == (4, 2, 2)

    other = Set(ledger, "other")
    other.remove()
    other.settle()
    assert ledger.problems == ["other: 1 more ends than armings (0 armed, 0 replaced, 0 fired, 1 removed, 0 unsure)"]


@pytest.mark.trio
async def test_a_period_that_is_lost_is_found(ledger: Ledger, autojump_clock: trio.testing.MockClock) -> None:
    """Every time of the grid has a run or is counted as missed; a miscount is told at the next run."""
    async with open_callouts():
        beat = Beat(ledger, None, 1000, 0)
        assert beat.p is not None
        await trio.sleep(2.5)
        autojump_clock.jump(3)  # as if the loop were blocked
        await trio.sleep(2)
        assert (ledger.problems, beat.fired, beat.p.missed) == ([], 5, 2)

        beat.p._times.missed += 1
        await trio.sleep(1)
        assert ledger.problems == ["periodic callout: of its periods 1 too many ran or were missed"]
        beat.remove(await beat.p.drain())
        beat.settle()
        assert ledger.found == 1


@pytest.mark.trio
async def test_a_run_whose_next_time_was_refused_has_armed_nothing(
    ledger: Ledger, autojump_clock: trio.testing.MockClock
) -> None:
    """A drain that begins between the beginning of a run and its arming has that refused: nothing is lost then."""
    async with open_callouts():
        beat = Beat(ledger, None, 1000, 0)
        assert beat.p is not None
        begun = beat.p.stop()  # what a drain leaves of it for a run that has begun
        beat.remove(bool(begun))
        beat.fire()
        beat.was_armed(beat.arming(0), replaced=False)  # of the run that was made up
        beat.settle()
        assert ledger.problems == []


def test_runs_that_overlap_lack_the_lock_or_are_early_are_found(ledger: Ledger, account: Account, clock: Clock) -> None:
    """Each is told when it begins."""
    account.enter(account.arming(0))
    account.enter(account.arming(0))
    assert ledger.problems == ["c: its callback runs twice at the same time"]

    account.leave()
    account.enter(account.arming(0), locked=False)
    assert ledger.problems[1:] == ["c: its callback runs without its lock"]

    account.leave()
    account.enter(account.arming(SECOND))
    assert ledger.problems[2:] == [f"c: its callback runs {SECOND} ns early"]


@pytest.mark.parametrize(("promised", "calls"), [(True, 0), (True, 2), (False, 1)])
def test_a_completion_that_is_lost_or_comes_twice_is_found(
    promised: bool, calls: int, ledger: Ledger, account: Account
) -> None:
    """A completion is called once if it was promised, else never."""
    completion = Completion(account)
    completion.promised = promised
    for _ in range(calls):
        completion(None)
    completion.settle()

    word = "promised" if promised else "not promised"
    assert ledger.problems == [f"c: a completion was {word}, and called {calls} times"]


def test_many_problems_are_counted(ledger: Ledger) -> None:
    """A run that goes wrong all the time does not fill the memory."""
    for number in range(MANY + 5):
        ledger.problem(str(number))

    assert len(ledger.problems) == MANY
    assert ledger.found == MANY + 5


# -- figures and faults --------------------------------------------------------------------------------------------


def test_latenesses_are_kept_to_an_eighth() -> None:
    """The buckets follow each other, and the greatest lateness of one is at most an eighth above its least."""
    for ns in range(10_000):
        greatest = _greatest(_bucket(ns))
        assert ns <= greatest <= ns + ns // 8
        assert _bucket(greatest) + 1 == _bucket(greatest + 1)


def test_quantiles() -> None:
    """The median and the ninety-ninth part are those of what was counted, and of nothing they are 0."""
    figures = Figures()
    assert figures.quantile(0.5) == 0
    for ns in range(1, 101):
        figures.late(ns * 1000)

    assert 50_000 <= figures.quantile(0.5) <= 57_000
    assert 99_000 <= figures.quantile(0.99) <= 100_000
    assert figures.quantile(1) == figures.latest == 100_000


@pytest.mark.skipif(not can_exhaust(), reason="this system has no limit of descriptors")
def test_without_descriptors_no_system_opens() -> None:
    """The fault makes the open fail, and is over after the block."""

    async def run() -> None:
        with few_descriptors(0), pytest.raises(OSError, match="Too many open files"):
            async with open_callouts(2):
                pytest.fail("the block must not be entered")
        async with open_callouts(2):
            pass

    trio.run(run)
    with Path(os.devnull).open(encoding="ascii"):
        pass
