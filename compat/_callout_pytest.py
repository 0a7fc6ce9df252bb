"""What pytest loads wherever callout is installed: options, marks and fixtures. It imports nothing of ``callout``.

To import any module of a package is to import the package, and ``callout`` imports trio and the engine. So this stands
beside it, as Hypothesis's plugin does, and ``callout.testing._pytest_plugin`` does the work, when there is some: for
the first test that is explored, and for the first fixture of these that is used.
"""

from __future__ import annotations

import inspect
import os
import sys
from argparse import ArgumentTypeError
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import AbstractAsyncContextManager
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pluggy import Result

    from callout import CalloutSystem

MARKS = (
    "explore(**options): run the test under every schedule of its virtual machine, vm, with these options of explore()",
    "callouts(**options): open the system that the fixture callouts gives with these options of open_callouts()",
)

NOTHING = (
    "--explore-replay: none of the tests that were selected is marked explore; name the one to which the schedule "
    "belongs, as the failure has printed it"
)

# Under pytest the pure core runs, which can be explored, and whose code can be traced. Unless somebody has chosen.
os.environ.setdefault("CALLOUT_PURE", "1")

MODERN = getattr(pytest, "version_tuple", (0,)) >= (8,)


def _import() -> ModuleType:
    """Import what does the work. It needs pytest 8; this module needs nothing, as it is loaded everywhere.

    Raises:
        ImportError: it says what to install.
    """
    if not MODERN:
        raise ImportError(f"exploring needs pytest 8 or later, and this is {pytest.__version__}")
    from callout.testing import _pytest_plugin

    return _pytest_plugin


def _work() -> ModuleType:
    """Import it for a test."""
    try:
        return _import()
    except ImportError as error:
        text = str(error)
    pytest.fail(text, pytrace=False)


def _count(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise ArgumentTypeError(f"give a number of schedules, 1 or more, not {text!r}")
    return number


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Add the options."""
    # pytest rewrites the assert statements of whatever is installed together with a plugin. Not here: the engine that
    # is explored is the one that is shipped, and it would take a second to import.
    marked = getattr(getattr(pluginmanager, "rewrite_hook", None), "_must_rewrite", None)
    if isinstance(marked, set):
        marked -= {"callout", "callout_linux"}
    group = parser.getgroup("callout", "exploring schedules (callout)")
    group.addoption(
        "--explore-replay",
        metavar="STRING",
        help="run each test that is marked explore once, under the schedule that a failure has named; name the test, "
        "too. With --pdb the debugger stops where it goes wrong",
    )
    group.addoption(
        "--explore-schedules",
        type=_count,
        metavar="N",
        help="run at most N schedules of each test, also if its mark allows more",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make the marks known, and refuse a string that is no schedule."""
    for mark in MARKS:
        config.addinivalue_line("markers", mark)
    schedule = config.getoption("explore_replay")
    if schedule is not None:
        try:
            _import().check_schedule(schedule)
        except ImportError as error:
            raise pytest.UsageError(f"--explore-replay: {error}") from None


def pytest_collection_finish(session: pytest.Session) -> None:
    """Refuse to replay a schedule of nothing: it would look as if it went well."""
    if _replays_nothing(session) and not hasattr(session.config, "workerinput"):
        raise pytest.UsageError(NOTHING)


def _replays_nothing(session: pytest.Session) -> bool:
    if session.config.getoption("explore_replay") is None or session.testsfailed:  # what could not be collected is said
        return False
    return not any(item.get_closest_marker("explore") for item in session.items)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Refuse what cannot be explored, and a mark without its fixture, before fixtures are set up."""
    if hasattr(item.config, "workerinput") and _replays_nothing(item.session):  # xdist's workers know no wrong usage
        pytest.fail(NOTHING, pytrace=False)
    if item.get_closest_marker("explore") is not None and isinstance(item, pytest.Function):
        _work().check(item)
    if any(mark.name == "callouts" for mark in item.own_markers) and "callouts" not in getattr(
        item, "fixturenames", ()
    ):
        pytest.fail(
            f"{item.name} is marked callouts, which is how the fixture callouts opens its system, and does not take "
            f"it: async def {getattr(item, 'originalname', item.name)}(callouts)",
            pytrace=False,
        )


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Explore a test, instead of calling it."""
    if pyfuncitem.get_closest_marker("explore") is None:
        return None
    _work().run(pyfuncitem)
    return True


@pytest.hookimpl(hookwrapper=True)  # the kind that an old pytest knows, too
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, Result[pytest.TestReport], None]:
    """Have a violation be readable, in whatever test it was found."""
    result = yield
    if MODERN and "callout.explore" in sys.modules:
        _work().complete(result.get_result(), item, call)


def pytest_report_teststatus(
    report: pytest.TestReport | pytest.CollectReport, config: pytest.Config
) -> tuple[str, str, str] | None:
    """With -v, say what was explored."""
    if report.when != "call" or not report.passed or hasattr(report, "wasxfail") or config.option.verbose < 1:
        return None
    explored = dict(report.user_properties).get("explored")
    return None if explored is None else ("passed", ".", f"PASSED ({explored})")


# -- fixtures ----------------------------------------------------------------------------------------------------------


class _NotYet:
    """Stands for the virtual machine while fixtures are set up."""

    def __getattr__(self, name: str) -> object:
        __tracebackhide__ = True
        raise AttributeError(
            f"vm.{name}: there is a virtual machine only while the test itself runs, a fresh one for each schedule. "
            "Fixtures are set up once, before that; make there what does not need it"
        )


@pytest.fixture
def vm(request: pytest.FixtureRequest) -> object:
    """The virtual machine of a test that is marked explore: a callout.testing.VirtualSMP, fresh for each schedule."""
    if request.node.get_closest_marker("explore") is None:
        pytest.fail(
            f"{request.node.name} takes vm, the virtual machine of a test that is explored: mark it with "
            "@pytest.mark.explore",
            pytrace=False,
        )
    return _NotYet()


@pytest.fixture
def _callouts_block(request: pytest.FixtureRequest) -> AbstractAsyncContextManager[CalloutSystem]:
    # No coroutine, so what is wrong is said before there is a loop, and in no group of exceptions.
    if not request.config.pluginmanager.has_plugin("trio") or request.node.get_closest_marker("trio") is None:
        pytest.fail(
            f"{request.node.name} takes callouts, a system that is open on the loop of the test: that is for async "
            "tests marked @pytest.mark.trio, and needs pytest-trio. Elsewhere open one in the test: async with "
            "open_callouts()",
            pytrace=False,
        )
    from callout import ArgumentTypeError, ArgumentValueError, open_callouts
    from callout.testing import _marks

    options = _marks.options_of(request.node, "callouts", inspect.signature(open_callouts).parameters, {})
    try:
        return open_callouts(**options)
    except (ArgumentTypeError, ArgumentValueError) as error:
        text = str(error)
    pytest.fail(text, pytrace=False)


@pytest.fixture
async def callouts(
    request: pytest.FixtureRequest, _callouts_block: AbstractAsyncContextManager[CalloutSystem]
) -> AsyncIterator[CalloutSystem]:
    """The callout system that is open while the test runs, for async tests with pytest-trio. The mark callouts says
    with which options.
    """
    from callout.testing import _leftovers

    async with _callouts_block as system:
        yield system
        _leftovers.note(request.node, system)


@pytest.fixture
def no_leftovers(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail if the test leaves something behind: an armed callout of the system of callouts, an object of a slab that
    was not freed, a thread, a file descriptor. What is to be seen closed is set up after this, so name this first.
    """
    from callout.testing import _leftovers

    with _leftovers.watched(request.node) as left:
        yield
    if left:
        pytest.fail(f"{request.node.name} has left behind:\n  " + "\n  ".join(left), pytrace=False)
