"""The fixtures for real loops: a system for the test, and a look at what the test leaves behind."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

HEAD = """
    import gc
    import socket
    import threading

    import pytest
    import trio

    from callout import Callout, Event, callout_drain, callout_init, callout_reset, callout_reset_on, hz
    from callout.testing import Slab

    kept = []

    class Thing:
        pass

    def armed(cpu=0, ticks=1, func=kept.append):
        c = Callout()
        callout_init(c, 1)
        callout_reset_on(c, ticks, func, "ran", cpu)
        return c
"""


def run(pytester: pytest.Pytester, tests: str, *options: str) -> pytest.RunResult:
    """Run *tests*."""
    pytester.makepyfile(test_it=f"{HEAD}\n{tests}")
    return pytester.runpytest_inprocess(
        "-p", "no:cacheprovider", *options, "-W", "ignore::pytest.PytestAssertRewriteWarning"
    )


def test_the_system_is_open_while_the_test_runs(pytester: pytest.Pytester) -> None:
    """With pytest-trio, callouts is the current system of the test, made as the mark says, also on a mock clock."""
    result = run(
        pytester,
        """
    pytestmark = pytest.mark.trio

    async def test_default(callouts):
        assert callouts.cpus == 1
        await callout_drain(armed())

    @pytest.mark.callouts(cpus=2, hz=100)
    async def test_options(callouts):
        assert (callouts.cpus, hz()) == (2, 100)
        await callout_drain(armed(cpu=1))

    async def test_clock(callouts, autojump_clock):
        ran = Event()
        armed(ticks=3600 * hz())
        armed(ticks=3600 * hz(), func=lambda word: ran.set())
        await ran.wait()
        assert kept == ["ran"]

    @pytest.fixture
    async def started(callouts):
        return armed()

    async def test_fixture(started):
        await callout_drain(started)
    """,
    )

    result.assert_outcomes(passed=4)


def test_elsewhere_the_error_says_where_it_belongs(pytester: pytest.Pytester) -> None:
    """In a plain test, under another async plugin, or without pytest-trio, callouts is one clear error."""
    tests = """
    def test_plain(callouts):
        pass

    @pytest.mark.anyio
    async def test_anyio(callouts):
        pass

    @pytest.fixture
    def anyio_backend():
        return "trio"
    """
    result = run(pytester, tests)
    without = run(
        pytester,
        """
    @pytest.mark.trio
    async def test_trio(callouts):
        pass
    """,
        "-p",
        "no:trio",
        "-W",
        "ignore::pytest.PytestUnknownMarkWarning",
    )

    result.assert_outcomes(errors=2)
    without.assert_outcomes(errors=1)
    for each in (result, without):
        each.stdout.fnmatch_lines(["test_* takes callouts, *@pytest.mark.trio, and needs pytest-trio. Elsewhere *"])
        assert "Traceback" not in each.stdout.str()


def test_wrong_marks_are_one_clear_error(pytester: pytest.Pytester) -> None:
    """A mark by position, of an unknown option, of a wrong value, or without its fixture; a module's is for all."""
    result = run(
        pytester,
        """
    pytestmark = [pytest.mark.trio, pytest.mark.callouts(hz=100)]

    @pytest.mark.callouts(2)
    async def test_position(callouts): pass
    @pytest.mark.callouts(cpu=2)
    async def test_unknown(callouts): pass
    @pytest.mark.callouts(cpus=0)
    async def test_value(callouts): pass
    @pytest.mark.callouts(on_error=3)
    async def test_type(callouts): pass
    @pytest.mark.callouts(cpus=2)
    async def test_without(): pass
    async def test_of_the_module(): pass
    @pytest.mark.callouts(cpus=2)
    async def test_both(callouts): assert (callouts.cpus, hz()) == (2, 100)
    """,
    )

    result.assert_outcomes(errors=5, passed=2)
    result.stdout.fnmatch_lines_random(
        [
            "@pytest.mark.callouts takes options by name, such as cpus=2, and not 2",
            "@pytest.mark.callouts has no option 'cpu'; it has cpus, hz, *",
            "*open_callouts: cpus must be from 1 to *, got 0",
            "*on_error must be *",
            "test_without is marked callouts, which * and does not take it: async def test_without(callouts)",
        ]
    )
    assert "ExceptionGroup" not in result.stdout.str()
    assert "Traceback" not in result.stdout.str()


def test_what_is_left_behind_is_named(pytester: pytest.Pytester) -> None:
    """no_leftovers fails for an armed callout, an object of a slab, a thread or a descriptor, and says which."""
    result = run(
        pytester,
        """
    common = Slab("common")

    @pytest.mark.trio
    async def test_armed(no_leftovers, callouts):
        kept.append(armed(ticks=1000))

    def test_object(no_leftovers):
        Slab("forgotten").alloc(Thing)
        common.alloc(Thing)

    def test_thread(no_leftovers):
        threading.Thread(target=threading.Event().wait, daemon=True, name="lost").start()

    opened = []

    def test_descriptor(no_leftovers):
        opened.append(socket.socket())

    def teardown_module():
        opened.pop().close()  # else its warning comes in a later test

    @pytest.mark.trio
    async def test_all(callouts, no_leftovers):
        kept.append(armed(ticks=1000))
        common.alloc(Thing)
    """,
        "-rA",
    )

    result.assert_outcomes(passed=5, errors=5)
    result.stdout.fnmatch_lines(
        [
            "test_armed has left behind:",
            "  an armed callout on cpu 0, function list.append, armed at *test_it.py:* in armed()",
            "test_object has left behind:",
            "  forgotten 1, generation 1 (Thing), allocated by * in test_object()*: it was not freed",
            "  common 1, generation 1 (Thing), allocated by * in test_object()*: it was not freed",
            "test_thread has left behind:",
            "  the thread 'lost'",
            "test_descriptor has left behind:",
            "  file descriptor *: socket*",
            "test_all has left behind:",
            "  an armed callout *",
            "  common 2, generation 1 (Thing), *",
        ]
    )


def test_what_is_put_away_is_not_left_behind(pytester: pytest.Pytester) -> None:
    """What was stopped, freed, joined, closed or lies in a garbage cycle is not reported, nor what was there before."""
    result = run(
        pytester,
        """
    before = Slab("before")
    before.alloc(Thing)
    here = socket.socket()

    @pytest.fixture
    def opened():
        with socket.socket() as made:
            yield made

    @pytest.mark.trio
    @pytest.mark.callouts(cpus=2)
    async def test_tidy(no_leftovers, callouts, opened):
        slab = Slab("thing")
        slab.free(slab.alloc(Thing))
        thread = threading.Thread(target=list)
        thread.start()
        thread.join()
        c = armed(cpu=1)
        await callout_drain(c)
        await trio.to_thread.run_sync(list)  # trio keeps the thread for the next call
        cycle = [open(__file__, "rb", buffering=0)]
        cycle.append(cycle)

    def test_end():
        here.close()
    """,
        "-W",
        "ignore::pytest.PytestUnraisableExceptionWarning",
        "-W",
        "ignore::ResourceWarning",
    )

    result.assert_outcomes(passed=2)


def test_in_an_explored_test_the_slabs_are_the_scenarios_own(pytester: pytest.Pytester) -> None:
    """no_leftovers looks at no slab of an explored test, and keeps none: each schedule has its own."""
    result = run(
        pytester,
        """
    import weakref
    slabs = weakref.WeakSet()

    @pytest.mark.explore(cpus=1, leaks=False)
    def test_it(no_leftovers, vm):
        slab = Slab("thing")
        slab.alloc(Thing)
        slabs.add(slab)
        armed()

    def test_end():
        gc.collect()
        assert len(slabs) < 3
    """,
    )

    result.assert_outcomes(passed=2)
