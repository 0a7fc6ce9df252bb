"""Tests that are explored: what pytest runs and prints for them."""

from __future__ import annotations

import re
import shlex
import sys
from typing import Final

import pytest

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


def test_skip_and_xfail_mean_what_they_mean(pytester: pytest.Pytester) -> None:
    """A test that skips in its first schedule is skipped, one that does later has failed; xfail expects violations."""
    result = run(
        pytester,
        """
    from callout.explore import Violation

    @pytest.mark.explore
    def test_skip(vm):
        pytest.skip("not here")

    @pytest.mark.xfail(raises=Violation, strict=True)
    @pytest.mark.explore(cpus=1, bound=2)
    def test_xfail(vm):
        closes(vm, Session)

    @pytest.mark.explore(cpus=1)
    def test_sometimes(vm):
        ran = []
        armed(ran.append)
        vm.point()
        if ran:
            pytest.skip("in one schedule")
    """,
    )

    result.assert_outcomes(skipped=1, xfailed=1, failed=1)


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
    """One of another test and a malformed one are the errors of replay(); one that goes well passes."""
    tests = """
    @pytest.mark.explore(cpus=1)
    def test_it(vm):
        pass
    """
    found = run(pytester, WRONG)
    schedule = schedule_of(found)
    other = run(pytester, tests, "--explore-replay", schedule)
    malformed = again(pytester, "--explore-replay", "v4")
    good = again(
        pytester, "--explore-replay", re.sub(r",test_it.*?,(.*):.*", r",test_it.test_it,\1:,choices=0", schedule), "-v"
    )

    other.assert_outcomes(failed=1)
    other.stdout.fnmatch_lines(["replay: the schedule is one of the scenario 'test_it.test_close', and this is *"])
    malformed.stdout.fnmatch_lines(["replay: 'v4' is not a schedule; *"])
    good.stdout.fnmatch_lines(["*PASSED (replayed one schedule)*"])


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
            "@pytest.mark.explore takes options by name, such as bound=2, and not 2",
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
