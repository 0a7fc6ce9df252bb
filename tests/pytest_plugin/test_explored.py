"""Tests that are explored: what pytest runs and prints for them."""

from __future__ import annotations

import re
import shlex
import sys
import textwrap
from typing import Final

import pytest

import callout.testing._pytest_plugin  # noqa: F401 - pytester removes what is imported first in a run of its

pytest_plugins = ["pytester"]

OPTIONS: Final = ("-p", "no:cacheprovider")

HEAD: Final = """
    import pytest
    from callout import Callout, Mtx, callout_drain, callout_drain_async, callout_init, callout_init_mtx
    from callout import callout_reset, callout_stop
    from callout.testing import Slab

    def armed(function, arg=None):
        c = Callout()
        callout_init(c, 1)
        callout_reset(c, 1, function, arg)
        return c

    class Session:
        def __init__(self, slab):
            self.slab = slab
            self.lock = Mtx("session")
            self.timer = Callout()
            callout_init_mtx(self.timer, self.lock)
            callout_reset(self.timer, 1, Session.expired, self)

        def expired(self):
            pass

        def close(self):
            with self.lock:
                callout_stop(self.timer)
            self.slab.free(self)

    class Mended(Session):
        references = 2

        def close(self):
            with self.lock:
                if callout_drain_async(self.timer, Mended.drained, self) == 0:
                    self.references -= 1
            self.drained()

        def drained(self):
            with self.lock:
                self.references -= 1
                last = self.references == 0
            if last:
                self.slab.free(self)

    def closes(vm, kind):
        slab = Slab("session")
        slab.alloc(kind, slab).close()
        vm.settle()
        assert not slab.leaks()
"""


def run(pytester: pytest.Pytester, tests: str, *options: str) -> pytest.RunResult:
    """Run *tests* in a file test_it.py."""
    pytester.makepyfile(test_it=f"{HEAD}\n{tests}")
    return again(pytester, *options)


def again(pytester: pytest.Pytester, *options: str) -> pytest.RunResult:
    """Run what there is."""
    # What runs here has imported the packages already; in a process of its own no such warning comes.
    return pytester.runpytest_inprocess(*OPTIONS, *options, "-W", "ignore::pytest.PytestAssertRewriteWarning")


def in_process(pytester: pytest.Pytester, *options: str) -> pytest.RunResult:
    """Run what there is in a process of its own."""
    return pytester.runpytest_subprocess(*OPTIONS, *options)


WRONG: Final = """
    @pytest.mark.explore(cpus=1, bound=2)
    def test_close(vm):
        closes(vm, Session)
"""


def schedule_of(result: pytest.RunResult) -> str:
    """Return the schedule that the command at the end of a failure has."""
    (schedule,) = re.findall(r"^pytest .* --explore-replay '(.*)'$", result.stdout.str(), re.MULTILINE)
    return str(schedule)


# -- what is printed ---------------------------------------------------------------------------------------------------


def test_a_violation_is_printed_in_the_words_of_the_explorer(pytester: pytest.Pytester) -> None:
    """A failure has the error, the violation's text and the command that replays it, and no frame of the package."""
    result = run(pytester, WRONG)

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "E   *UseAfterFree: session 1, generation 1 (Session) was used after it was freed: its lock*was acquired",
            "*freed by thread 'main' at *test_it.py:* in Session.close()*",
            "schedule * went wrong; *",
            "pytest test_it.py::test_close --explore-replay 'v*'",
            "FAILED test_it.py::test_close - *UseAfterFree*",
        ]
    )
    text = result.stdout.str()
    assert not re.search(r"^\S*\bcallout\S*\.py:\d+: ", text, re.MULTILINE), "a frame of the package"
    assert len(text.splitlines()) < 90


def test_the_place_in_the_test_is_shown(pytester: pytest.Pytester) -> None:
    """An assertion of the test is shown with its line and its values, in a thread or a callback as well."""
    result = run(
        pytester,
        """
    @pytest.mark.explore(cpus=1, bound=1)
    def test_main(vm):
        ran = []
        armed(ran.append, 1)
        vm.point()
        assert ran == []

    @pytest.mark.explore(cpus=1, bound=1)
    def test_callback(vm):
        def callback(arg):
            assert arg == 2
        armed(callback, 1)
    """,
    )

    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(
        [
            "test_it.py:*: in test_main",
            "    assert ran == [[][]]",
            "E   assert [[]1] == [[][]]",
            "test_it.py:*: in callback",
            "    assert arg == 2",
            "E   assert 1 == 2",
        ]
    )
    assert "in thread" not in result.stdout.str()


def test_a_violation_in_an_ordinary_test_is_readable_too(pytester: pytest.Pytester) -> None:
    """Where a test calls explore() itself, its Violation has no frame of the explorer, but with --full-trace."""
    tests = """
    def test_it():
        from callout.explore import explore
        explore(lambda vm: closes(vm, Session), cpus=1, bound=2)
    """
    short = run(pytester, tests)
    long = again(pytester, "--full-trace")

    assert "in Session.close()" in short.stdout.str()
    assert "went wrong" in short.stdout.str()
    assert "--explore-replay" not in short.stdout.str()
    assert "_explore.py" not in short.stdout.str()
    assert "softclock.py" in long.stdout.str()


def test_a_certificate_is_shown(pytester: pytest.Pytester) -> None:
    """-v says beside PASSED what was explored; -rA has a section with it; without them nothing is said."""
    tests = """
    @pytest.mark.explore(cpus=1, bound=2)
    def test_close(vm):
        closes(vm, Mended)

    def test_ordinary():
        pass
    """
    verbose = run(pytester, tests, "-v")
    full = again(pytester, "-rA")
    plain = again(pytester)

    verbose.stdout.re_match_lines(
        [r".*::test_close PASSED \(\d+ schedules, bound 2, exhausted, [\d.]+ s\)", r".*::test_ordinary PASSED  "]
    )
    full.stdout.re_match_lines(
        ["-+ explored -+", r"schedules  \d+", "bound      at most 2 preemptions", "exhausted  yes"]
    )
    assert "schedules" not in plain.stdout.str()


def test_nondeterminism_is_said_in_a_few_lines(pytester: pytest.Pytester) -> None:
    """A scenario that differs from run to run ends in NondeterminismError, with no frame of the explorer."""
    result = run(
        pytester,
        """
    kept = []

    @pytest.mark.explore(cpus=1)
    def test_it(vm):
        vm.spawn(vm.point)
        kept.append(1)
        for _ in kept:
            vm.point()
    """,
    )

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E   *NondeterminismError: the scenario is not deterministic: *"])
    assert "_explore.py" not in result.stdout.str()


# -- what is run -------------------------------------------------------------------------------------------------------


def test_the_body_is_run_for_each_schedule_and_fixtures_once(pytester: pytest.Pytester) -> None:
    """Every kind of function is explored, with parameters and fixtures; fixtures are set up and torn down once."""
    result = run(
        pytester,
        """
    pytestmark = pytest.mark.explore(bound=1)
    calls = []

    @pytest.fixture
    def resource(tmp_path):
        calls.append("up")
        yield tmp_path
        calls.append("down")

    @pytest.mark.parametrize("word", ["one", "other [two]"])
    def test_function(vm, resource, word):
        calls.append(word)
        armed(lambda arg: None)

    @pytest.mark.parametrize("word", ["three"])
    async def test_coroutine(vm, word):
        await callout_drain(armed(lambda arg: calls.append(word)))

    @pytest.mark.explore(cpus=3)
    class TestMethods:
        @pytest.mark.explore(bound=0)
        def test_method(self, vm):
            assert len(vm.machine.cpus) == 3
            armed(lambda arg: None)

    @pytest.fixture
    def the_end():
        yield
        assert calls.count("up") == calls.count("down") == 2
        assert all(calls.count(word) > 2 for word in ("one", "other [two]", "three"))

    @pytest.mark.explore(bound=0)
    def test_end(vm, the_end):
        pass
    """,
        "-v",
        "-W",
        "error",
    )

    result.assert_outcomes(passed=5)
    result.stdout.fnmatch_lines(["*test_function?other ?two?? PASSED (*bound 1,*", "*test_method PASSED (*bound 0,*"])


def test_marks_and_fixtures_skip_and_expect_failures(pytester: pytest.Pytester) -> None:
    """What is said of the whole test holds: a mark or a fixture skips it, and xfail expects the Violation."""
    result = run(
        pytester,
        """
    from callout.explore import Violation

    @pytest.mark.skipif(True, reason="not here")
    @pytest.mark.explore
    def test_mark(vm):
        pass

    @pytest.fixture
    def elsewhere():
        pytest.skip("not here")

    @pytest.mark.explore
    def test_fixture(vm, elsewhere):
        pass

    @pytest.mark.xfail(raises=Violation, strict=True)
    @pytest.mark.explore(cpus=1, bound=2)
    def test_xfail(vm):
        closes(vm, Session)
    """,
    )

    result.assert_outcomes(skipped=2, xfailed=1)


def test_a_body_that_skips_has_failed(pytester: pytest.Pytester) -> None:
    """A skip in any schedule, thread or callback would hide the schedules that are left: it says so, and what to do."""
    tests = """
    import unittest

    @pytest.mark.explore
    def test_hides(vm):
        count = vm.cell(0, "count")
        def add():
            count.value += 1
        vm.spawn(add)
        vm.spawn(add)
        vm.settle()
        if count.peek() == 2:
            pytest.skip("nothing raced")
        assert count.peek() == 2

    @pytest.mark.explore(cpus=1)
    def test_later(vm):
        ran = []
        armed(ran.append)
        vm.point()
        if ran:
            pytest.xfail("in one schedule")

    @pytest.mark.explore(cpus=1)
    def test_callback(vm):
        armed(lambda arg: pytest.skip("in a callback"))

    @pytest.mark.explore(cpus=1)
    def test_unittest(vm):
        raise unittest.SkipTest("not here")

    @pytest.mark.explore(cpus=1)
    def test_import(vm):
        pytest.importorskip("callout.nothing")
    """
    result = run(pytester, tests)
    replayed = again(
        pytester, "-k", "hides", "--explore-replay", "v4,test_it.test_hides,cpus=2,hz=1000,paths=short:,choices=0"
    )

    result.assert_outcomes(failed=5)
    replayed.assert_outcomes(failed=1)
    for name in ("hides", "callback", "unittest", "import"):
        result.stdout.fnmatch_lines(
            [f"test_{name}: pytest.skip() in the body of an explored test would end the search*"]
        )
    result.stdout.fnmatch_lines(["test_later: pytest.xfail() in the body * with a mark or in a fixture; *"])
    replayed.stdout.fnmatch_lines(["test_hides: pytest.skip() in the body *"])
    assert "Traceback" not in result.stdout.str()


def test_what_pytest_trio_marks_is_explored_all_the_same(pytester: pytest.Pytester) -> None:
    """With trio_mode on, an async test that is explored runs on its virtual machine; a fixture of trio's is refused."""
    pytester.makeini("[pytest]\ntrio_mode = true")
    result = run(
        pytester,
        """
    @pytest.fixture
    async def number():
        return 3

    @pytest.mark.explore(cpus=1)
    async def test_explored(vm):
        await callout_drain(armed(lambda arg: None))

    @pytest.mark.explore(cpus=1)
    async def test_refused(vm, number):
        pass
    """,
    )

    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["test_refused takes number, a fixture that needs a loop of trio, *"])


def test_xdist_workers_explore(pytester: pytest.Pytester) -> None:
    """Under -n 2 certificates and failures, with their commands, come from the workers."""
    result = run(
        pytester,
        f"""
    {WRONG}
    @pytest.mark.explore(cpus=1, bound=2)
    def test_mended(vm):
        closes(vm, Mended)
    """,
        "-n2",
        "-v",
    )

    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*PASSED (* schedules, bound 2, exhausted, * s) test_it.py::test_mended*"])
    again(pytester, "test_it.py::test_close", "--explore-replay", schedule_of(result)).assert_outcomes(failed=1)


# -- options -----------------------------------------------------------------------------------------------------------


def test_the_command_of_a_failure_reproduces_it_in_a_fresh_process(pytester: pytest.Pytester) -> None:
    """The command that is printed, from another folder too, ends in the same error; and it runs one schedule."""
    tests = """
    @pytest.mark.parametrize("kind", [Session], ids=["a [b]"])
    @pytest.mark.explore(cpus=1, bound=2)
    def test_close(vm, kind):
        print("once")
        closes(vm, kind)
    """
    found = run(pytester, tests, "-s")
    (command,) = re.findall(r"^(pytest .*)$", found.stdout.str(), re.MULTILINE)
    words = shlex.split(command)
    replayed = pytester.run(sys.executable, "-m", *words, "-s")

    found.assert_outcomes(failed=1)
    assert found.stdout.str().count("once\n") > 1
    replayed.assert_outcomes(failed=1)
    replayed.stdout.fnmatch_lines(
        ["E   *UseAfterFree: session 1, generation 1 (Session) was used after it was freed: *"]
    )
    assert replayed.stdout.str().count("once\n") == 1

    inner = pytester.mkdir("inner")
    pytester.makeini("[pytest]")  # the root stays where it is
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(inner)
        elsewhere = pytester.run(sys.executable, "-m", "pytest", "../test_it.py")
        (command,) = re.findall(r"^(pytest .*)$", elsewhere.stdout.str(), re.MULTILINE)
        pytester.run(sys.executable, "-m", *shlex.split(command)).assert_outcomes(failed=1)


def test_the_debugger_stops_in_the_replayed_test(pytester: pytest.Pytester) -> None:
    """With --pdb and --explore-replay the variables of the test are those of the schedule that went wrong."""
    found = run(
        pytester,
        """
    @pytest.mark.explore(cpus=1)
    def test_it(vm):
        ran = []
        armed(ran.append, 7)
        vm.point()
        assert ran == []
    """,
    )
    result = pytester.run(
        sys.executable,
        "-m",
        "pytest",
        "--pdb",
        "test_it.py",
        "--explore-replay",
        schedule_of(found),
        stdin=b"p 'found', ran\nq\n",
    )

    result.stdout.fnmatch_lines(["*PDB post_mortem*", "*('found', [[]7])*"])


def test_a_schedule_that_does_not_fit_is_refused(pytester: pytest.Pytester) -> None:
    """One of another test, or of other numbers than its mark's, is refused; one that goes well passes."""
    tests = """
    @pytest.mark.explore(cpus=1)
    def test_it(vm):
        pass
    """
    found = run(pytester, WRONG)
    schedule = schedule_of(found)
    other = run(pytester, tests, "--explore-replay", schedule)
    good = re.sub(r",test_it.*?,(.*):.*", r",test_it.test_it,\1:,choices=0", schedule)
    fits = again(pytester, "--explore-replay", good, "-v")

    other.assert_outcomes(failed=1)
    other.stdout.fnmatch_lines(["replay: the schedule is one of the scenario 'test_it.test_close', and this is *"])
    fits.stdout.fnmatch_lines(["*PASSED (replayed one schedule)*"])
    for old, new in (("cpus=1", "cpus=7"), ("hz=1000", "hz=7"), ("paths=short", "paths=long")):
        refused = again(pytester, "--explore-replay", good.replace(old, new))
        refused.assert_outcomes(failed=1)
        refused.stdout.fnmatch_lines(
            [f"replay: the schedule was found with *{new}*, and test_it.test_it is explored with *{old}*; *"]
        )


def test_the_numbers_of_the_mark_are_those_of_the_replay(pytester: pytest.Pytester) -> None:
    """A livelock of a mark's steps is one again; a schedule that was found with a mark's hz and paths fits."""
    tests = """
    @pytest.mark.explore(steps=100, hz=100, short_paths=False)
    def test_it(vm):
        count = vm.cell(0, "count")
        for _ in range(200):
            count.value += 1
    """
    schedule = schedule_of(run(pytester, tests))
    result = again(pytester, "--explore-replay", schedule)

    assert ",cpus=2,hz=100,paths=long:" in schedule
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E *LivelockError: *"])


@pytest.mark.parametrize("workers", [(), ("-n1",)])
def test_a_schedule_that_nothing_can_replay_is_a_usage_error(
    pytester: pytest.Pytester, workers: tuple[str, ...]
) -> None:
    """A malformed string is one, and so is any where no explored test was selected: nothing would have been run."""
    pytester.makepyfile(test_it="def test_plain(): pass")
    malformed = again(pytester, "--explore-replay", "v4", *workers)
    nothing = again(pytester, "--explore-replay", "v4,x,cpus=1,hz=1000,paths=short:,choices=0", *workers)

    assert malformed.ret == pytest.ExitCode.USAGE_ERROR
    malformed.stderr.fnmatch_lines(["ERROR: --explore-replay: 'v4' is not a schedule; *"])
    text = "*--explore-replay: none of the tests that were selected is marked explore; name *"
    if workers:  # there it is every test that says it
        nothing.assert_outcomes(errors=1)
        nothing.stdout.fnmatch_lines([text])
    else:
        assert nothing.ret == pytest.ExitCode.USAGE_ERROR
        nothing.stderr.fnmatch_lines([text])


def test_no_two_tests_have_one_name(pytester: pytest.Pytester) -> None:
    """The string of a test is refused by one of the same name in another folder, and by one of similar parameters."""
    for folder in ("a", "b"):
        pytester.mkpydir(folder).joinpath("test_same.py").write_text(
            textwrap.dedent(f"""{HEAD}
    @pytest.mark.explore(cpus=1)
    @pytest.mark.parametrize("word", ["a b", "a_b", "a.b", "[a", "é/"])
    def test_it(vm, word):
        assert word == "nothing"
    """),
            "utf-8",
        )
    found = again(pytester)
    commands = [shlex.split(each) for each in re.findall(r"^pytest (.*)$", found.stdout.str(), re.MULTILINE)]
    names = {schedule.split(",")[1] for *_, schedule in commands}

    found.assert_outcomes(failed=10)
    assert len(names) == len(commands) == 10
    assert "a.test_same.test_it<a_b>" in names
    again(pytester, *commands[0]).assert_outcomes(failed=1)
    everywhere = again(pytester, *commands[0][1:]).stdout.str()
    assert everywhere.count("E   AssertionError: assert 'a b' == 'nothing'") == 1
    refused = "replay: the schedule is one of the scenario 'a.test_same.test_it<a_b>-"
    assert sum(line.startswith(refused) for line in everywhere.splitlines()) == 9  # and a summary may say so again


def test_a_search_that_was_cut_off_is_a_warning(pytester: pytest.Pytester) -> None:
    """The warning names the limit, and what mostly causes it: the number or the seconds of the mark, or
    --explore-schedules, if that is less.
    """
    tests = """
    @pytest.mark.explore(cpus=1, schedules=3)
    def test_number(vm):
        closes(vm, Mended)

    @pytest.mark.explore(cpus=1, seconds=1e-9)
    def test_time(vm):
        closes(vm, Mended)
    """
    marks = run(pytester, tests, "-v", "-W", "always::callout.testing.CutShortWarning")
    option = again(pytester, "--explore-schedules", "2", "-k", "number", "-W", "error::callout.testing.CutShortWarning")
    more = again(
        pytester, "--explore-schedules=50", "-k", "number", "-v", "-W", "always::callout.testing.CutShortWarning"
    )

    marks.assert_outcomes(passed=2, warnings=2)
    marks.stdout.fnmatch_lines(
        [
            "*test_number PASSED (3 schedules, bound 3, cut off, *",
            "*CutShortWarning: test_number: *3 schedules (schedules=); * Mostly *vm.setup()*; *plain data*; or *CPUs*",
            "*CutShortWarning: test_time: the search was cut off by its limit, 1e-09 seconds (seconds=); *",
        ]
    )
    option.assert_outcomes(failed=1)
    option.stdout.fnmatch_lines(["E   *the search was cut off by its limit, 2 schedules (--explore-schedules); *"])
    more.stdout.fnmatch_lines(["*test_number PASSED (3 schedules, *", "*its limit, 3 schedules (schedules=); *"])


def test_no_option_raises_the_number_of_schedules_that_are_picked_by_chance(pytester: pytest.Pytester) -> None:
    """--explore-schedules is no more than, also for a strategy that has a number of its own."""
    result = run(
        pytester,
        """
    @pytest.mark.explore(cpus=1, strategy="random")
    def test_chance(vm):
        pass

    @pytest.mark.explore(cpus=1, schedules="many")
    def test_wrong(vm):
        pass
    """,
        "--explore-schedules=5000",
        "-v",
    )

    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        ["*test_chance PASSED (1000 schedules, *", "explore: schedules must be an int, not 'many'"]
    )


@pytest.mark.parametrize("number", ["0", "-1", "many"])
def test_a_wrong_number_of_schedules_is_a_usage_error(pytester: pytest.Pytester, number: str) -> None:
    """--explore-schedules takes a number from 1."""
    result = again(pytester, f"--explore-schedules={number}")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*--explore-schedules: give a number of schedules, 1 or more, not '{number}'"])


# -- wrong use ---------------------------------------------------------------------------------------------------------


def test_wrong_use_is_one_clear_error_for_that_test(pytester: pytest.Pytester) -> None:
    """Each mistake in a mark or a signature is said in one line, with no traceback, and the other tests run."""
    result = run(
        pytester,
        """
    import unittest
    from hypothesis import given, strategies

    def test_unmarked(vm): pass
    @pytest.mark.explore(cpu=1, deep=2)
    def test_unknown(vm): pass
    @pytest.mark.explore(bound=-1)
    def test_value(vm): pass
    @pytest.mark.explore(seconds="1")
    def test_type(vm): pass
    @pytest.mark.explore(executor=None)
    def test_executor(vm): pass
    @pytest.mark.explore(2)
    def test_position(vm): pass
    @pytest.mark.explore
    def test_without(): pass
    class TestCase(unittest.TestCase):
        @pytest.mark.explore
        def test_case(self): pass
    @pytest.mark.explore
    @given(strategies.integers())
    def test_given(vm, number): pass
    class TestOther:
        @pytest.fixture
        def vm(self): return "mine"
        @pytest.mark.explore
        def test_other(self, vm): pass
        def test_mine(self, vm): assert vm == "mine"
    """,
    )

    result.assert_outcomes(passed=1, failed=3, errors=7)
    result.stdout.fnmatch_lines_random(
        [
            "test_unmarked takes vm, *: mark it with @pytest.mark.explore",
            "@pytest.mark.explore has no option 'cpu', 'deep'; it has cpus, hz, bound, *",
            "explore: bound must be from 0 *",
            "explore: seconds must be a number or None, not '1'",
            "@pytest.mark.explore has no option executor: *",
            "@pytest.mark.explore takes options by name, such as cpus=2, and not 2",
            "test_without is marked explore, so it has to take the virtual machine: def test_without(vm)",
            "test_case is a method of a unittest.TestCase, *",
            "test_given is marked explore, and given examples by Hypothesis: *",
            "test_other is marked explore, and its vm is another fixture of this name: 'mine'",
        ]
    )
    assert "Traceback" not in result.stdout.str()
    assert "During handling" not in result.stdout.str()


def test_a_fixture_that_uses_the_machine_is_told_why_it_cannot(pytester: pytest.Pytester) -> None:
    """Fixtures are set up before there is a virtual machine: its use there is an error that says so."""
    result = run(
        pytester,
        """
    @pytest.fixture
    def early(vm):
        vm.spawn(print)

    @pytest.mark.explore
    def test_it(vm, early):
        pass
    """,
    )

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["E*vm.spawn: there is a virtual machine only while the test itself runs, *"])


def test_without_greenlet_the_error_names_the_extra(pytester: pytest.Pytester) -> None:
    """Where greenlet is not installed, a test that is explored is an error that says what to install; others run."""
    pytester.makeconftest("import sys\nsys.modules['greenlet'] = None")
    pytester.makepyfile(
        test_it="""
    import pytest

    @pytest.mark.explore
    def test_explored(vm):
        pass

    def test_other():
        pass
    """
    )
    result = in_process(pytester)

    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["the virtual platform needs greenlet: *callout?explore?*"])


# -- where it is not used ----------------------------------------------------------------------------------------------


def test_the_plugin_is_inert(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is explored, pytest has loaded neither callout nor trio nor greenlet, however the tests end."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makepyfile(
        """
    import sys

    def test_one():
        assert "_callout_pytest" in sys.modules
        assert not {"callout", "trio", "greenlet"} & set(sys.modules)
        assert 0, "as far as this"
    """
    )
    result = in_process(pytester, "-p", "callout", "-rA")

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*as far as this"])


def test_the_engine_is_not_rewritten(pytester: pytest.Pytester) -> None:
    """The assertions of the tests are rewritten, and not those of the engine that is explored."""
    pytester.makepyfile(
        """
    def test_loader():
        import callout._core.softclock, callout_linux
        for module in (callout._core.softclock, callout_linux):
            assert "Rewriting" not in type(module.__loader__).__name__
    """
    )

    in_process(pytester).assert_outcomes(passed=1)


def test_help_and_markers_name_it(pytester: pytest.Pytester) -> None:
    """The options, marks and fixtures are in what pytest prints about itself."""
    options, marks, fixtures = (again(pytester, word) for word in ("--help", "--markers", "--fixtures"))

    options.stdout.fnmatch_lines(["*--explore-replay=STRING*", "*--explore-schedules=N*"])
    marks.stdout.fnmatch_lines(["@pytest.mark.explore(?*options): *", "@pytest.mark.callouts(?*options): *"])
    for name in ("vm", "callouts", "no_leftovers"):
        fixtures.stdout.fnmatch_lines([f"{name} -- *"])


def test_a_leak_fails_an_explored_test_unless_its_mark_says_otherwise(pytester: pytest.Pytester) -> None:
    """Also when the schedule is replayed."""
    pytester.makepyfile(
        test_leaks="""
        import pytest
        from callout.testing import Slab

        class Thing:
            pass

        @pytest.mark.explore(cpus=1)
        def test_leaks(vm):
            Slab("thing").alloc(Thing)

        @pytest.mark.explore(cpus=1, leaks=False)
        def test_may(vm):
            Slab("thing").alloc(Thing)
        """
    )
    pytester.runpytest().assert_outcomes(passed=1, failed=1)
    string = "v4,test_leaks.test_may,cpus=1,hz=1000,paths=short:,choices=0"
    pytester.runpytest("-k", "may", "--explore-replay", string).assert_outcomes(passed=1)
