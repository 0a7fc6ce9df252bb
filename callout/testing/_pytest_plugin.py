"""Tests that are explored: what ``_callout_pytest``, which pytest has loaded, calls for them.

A test that is marked ``explore`` is a scenario. Its fixtures are set up once; its body is run for every schedule, each
time on a fresh virtual machine, which it takes as ``vm``.

What is printed of a violation is where it happened in the user's code, what ``explore()`` says of the schedule, and the
command that runs this schedule again.
"""

from __future__ import annotations

import inspect
import os
import re
import shlex
import unittest
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pluggy
import pytest

from .._core.errors import ArgumentTypeError, ArgumentValueError
from ..explore import Certificate, Violation, explore, replay
from ..explore._explore import MANY, SOME
from ..explore._schedule import Setting, name_of, parse
from . import _marks
from ._cut_short import cut_short
from ._marks import refuse

if TYPE_CHECKING:
    from . import VirtualSMP

Options = dict[str, Any]  # of explore(), which looks at them itself

_FUNCTION: Final = pytest.StashKey[Callable[..., object]]()
_TOLD: Final = pytest.StashKey[str]()

_DEFAULTS: Final[Mapping[str, Any]] = {
    each.name: each.default
    for each in inspect.signature(explore).parameters.values()
    if each.kind is inspect.Parameter.KEYWORD_ONLY and each.name != "executor"
}
_NO_OPTIONS: Final = {
    "executor": "a test is explored in the process that runs it. Run several tests at once, with pytest-xdist, or call "
    "explore(scenario, executor=…) in a plain test"
}
_PACKAGE: Final = Path(__file__).parents[1]
_USERS: Final = (_PACKAGE / "museum", _PACKAGE / "demo")  # parts of the package that only use it
_SKIPS: Final = (pytest.skip.Exception, pytest.xfail.Exception, unittest.SkipTest)
_INTERNAL: Final = tuple(Path(inspect.getfile(each)).parent for each in (pytest.Function, pluggy.PluginManager))


# -- running -----------------------------------------------------------------------------------------------------------


def check(item: pytest.Function) -> None:
    """Refuse a test that cannot be explored, and keep its function: other plugins put theirs in its place."""
    options_of(item)
    func = item.obj
    if item.cls is not None and issubclass(item.cls, unittest.TestCase):
        refuse(f"{item.name} is a method of a unittest.TestCase, and those cannot be explored: make it a function")
    if hasattr(func, "is_hypothesis_test"):
        refuse(
            f"{item.name} is marked explore, and given examples by Hypothesis: these would be other ones in every "
            "schedule. Call explore() in a test of Hypothesis instead"
        )
    if "vm" not in item._fixtureinfo.argnames:
        refuse(f"{item.name} is marked explore, so it has to take the virtual machine: def {item.originalname}(vm)")
    item.stash[_FUNCTION] = func


def check_schedule(schedule: str) -> None:
    """Refuse a string that is no schedule, before anything is collected."""
    try:
        parse(schedule)
    except ArgumentValueError as error:
        raise pytest.UsageError(f"--explore-{error}") from None


def options_of(item: pytest.Item) -> Options:
    """Return the options of a test."""
    return _marks.options_of(item, "explore", _DEFAULTS, _NO_OPTIONS)


def run(item: pytest.Function) -> None:
    """Explore the test; or run it under the one schedule that was asked for."""
    __tracebackhide__ = True
    scenario = _scenario(item)
    options: Options = {"progress": False} | options_of(item)  # the line would be in the middle of pytest's own
    schedule: str | None = item.config.getoption("explore_replay")
    given = _limit(options, item.config.getoption("explore_schedules"))
    certificate: Certificate | None = None
    refused = ""
    try:
        if schedule is None:
            certificate = explore(scenario, **options)
        else:
            _replay(scenario, schedule, options)
    except Violation as violation:
        cause = violation.__cause__
        if isinstance(cause, pytest.exit.Exception):  # this is no failure, and pytest knows it by its class
            raise cause from None
        if not isinstance(cause, _SKIPS):
            raise
        refused = _hidden(item, cause)
    except _SKIPS as skipped:  # of the schedule that was replayed
        refused = _hidden(item, skipped)
    except (ArgumentTypeError, ArgumentValueError) as error:
        if error.call not in ("explore", "replay"):
            raise
        refused = str(error)
    if refused:
        refuse(refused)
    if certificate is None:
        item.stash[_TOLD] = f"replayed {schedule}\nnothing went wrong"
        item.user_properties.append(("explored", "replayed one schedule"))
        return
    item.stash[_TOLD] = told(certificate)
    item.user_properties.append(("explored", briefly(certificate)))
    warning = cut_short(item.name, certificate, given, options.get("seconds"), at=options.get("schedules") or MANY)
    if warning is not None:
        item.warn(warning)


def _limit(options: Options, most: int | None) -> str:
    """Let there be at most so many schedules, and no more than the mark says; return how the limit was given."""
    its = options.get("schedules")
    if its is None:
        its = MANY if options.get("strategy", "dfs") == "dfs" else SOME
    if most is None or not isinstance(its, int) or its <= most:  # what is no number explore() refuses
        return "schedules="
    options["schedules"] = most
    return "--explore-schedules"


def _replay(scenario: Callable[[VirtualSMP], object], schedule: str, options: Options) -> None:
    """Run the test under one schedule, which must be one that its mark allows."""
    its = {**_DEFAULTS, **options}
    setting, _ = parse(schedule)
    setting.check(Setting(its["cpus"], its["hz"], its["short_paths"], name_of(scenario)))
    replay(scenario, schedule, steps=its["steps"], leaks=its["leaks"], results=its["results"])


def _hidden(item: pytest.Function, skipped: BaseException) -> str:
    """Say why a test may not skip in its body."""
    call = "pytest.xfail()" if isinstance(skipped, pytest.xfail.Exception) else "pytest.skip()"
    return (
        f"{item.name}: {call} in the body of an explored test would end the search, and hide what goes wrong in the "
        f"schedules that are left. Say it of the whole test, with a mark or in a fixture; a schedule in which there "
        "is nothing to be tested may return"
    )


def _scenario(item: pytest.Function) -> Callable[[VirtualSMP], object]:
    """Return the scenario that a test is."""
    func = item.stash[_FUNCTION]
    given = {name: item.funcargs[name] for name in item._fixtureinfo.argnames}
    for name, value in given.items():
        if type(value).__module__.startswith("pytest_trio"):
            refuse(
                f"{item.name} takes {name}, a fixture that needs a loop of trio, and there is none in an explored test"
            )
    if type(given["vm"]).__module__ != "_callout_pytest":
        refuse(f"{item.name} is marked explore, and its vm is another fixture of this name: {given['vm']!r}")
    if inspect.iscoroutinefunction(func):

        async def task(vm: VirtualSMP) -> object:
            __tracebackhide__ = True
            return await func(**{**given, "vm": vm})

        scenario: Callable[[VirtualSMP], object] = task
    else:

        def thread(vm: VirtualSMP) -> object:
            __tracebackhide__ = True
            return func(**{**given, "vm": vm})

        scenario = thread
    scenario.__qualname__ = _name_of(item)
    return scenario


def _name_of(item: pytest.Function) -> str:
    """Return how a schedule calls a test: as no other one that could be explored with it, in any process."""
    module = item.getparent(pytest.Module)
    assert module is not None
    test = ".".join(item.nodeid.split("::")[1:])
    plain = test.replace("[", "<", 1).removesuffix("]") + ">" * test.endswith("]")
    name = re.sub(r"[^\w.<>-]+", "_", plain)
    mark = "" if name == plain else f"-{zlib.crc32(test.encode('utf-8', 'surrogatepass')):08x}"  # "a b" is not "a_b"
    return f"{module.obj.__name__}.{name}{mark}"


# -- what is said ------------------------------------------------------------------------------------------------------


def briefly(certificate: Certificate) -> str:
    """Say in a few words what was explored."""
    bound = "no bound" if certificate.bound is None else f"bound {certificate.bound}"
    end = "exhausted" if certificate.exhausted else "cut off"
    return f"{certificate.schedules} schedules, {bound}, {end}, {certificate.seconds:.1f} s"


def told(certificate: Certificate) -> str:
    """Say what was explored."""
    bound = "any number of preemptions" if certificate.bound is None else f"at most {certificate.bound} preemptions"
    kind = ", without equivalent ones" if certificate.reduced else ""
    ran = ", ".join(f"{name} in {count}" for name, count in certificate.ran.items())
    return (
        f"schedules  {certificate.schedules}, by {certificate.strategy}{kind}\n"
        f"bound      {bound}\n"
        f"exhausted  {'yes' if certificate.exhausted else 'no, there are more'}\n"
        f"steps      {certificate.steps}, {certificate.longest} in the longest\n"
        f"seconds    {certificate.seconds:.2f}\n"
        f"ran        {ran or 'no callback'}\n"
        f"not        {', '.join(certificate.not_covered)}"
    )


def complete(report: pytest.TestReport, item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Add to a report what was explored, or have it show what went wrong and not the explorer's insides."""
    text = item.stash.get(_TOLD, None)
    if call.when == "call" and text is not None:
        report.sections.append(("explored", text))
    if call.excinfo is None or not report.failed:
        return
    error = call.excinfo.value
    explored = isinstance(item, pytest.Function) and _FUNCTION in item.stash
    if isinstance(error, Violation):
        cause = error.__cause__
        longrepr = _shown(item, error if cause is None or cause.__traceback__ is None else cause)
        longrepr.addsection("explored", str(error))
        if explored:
            longrepr.addsection("to run this schedule again", command(item, error.schedule))
        report.longrepr = longrepr
    elif explored and call.when == "call" and not isinstance(error, pytest.fail.Exception):
        report.longrepr = _shown(item, error)


def command(item: pytest.Item, schedule: str) -> str:
    """Return the command that runs a test under one schedule."""
    try:
        file = os.path.relpath(item.path, item.config.invocation_params.dir)
    except ValueError:  # on another drive
        file = str(item.path)
    name = "::".join((file, *item.nodeid.split("::")[1:]))
    return f"pytest {shlex.quote(name)} --explore-replay '{schedule}'"


def _shown(item: pytest.Item, error: BaseException) -> Any:  # noqa: ANN401 - of pytest's private types
    """Return how pytest prints an error, in short: where it happened in the user's code."""
    config = item.config
    style = config.getoption("tbstyle")
    whole = config.getoption("fulltrace")
    shown: Any = pytest.ExceptionInfo.from_exception(error).getrepr(
        style=style if style in ("long", "native") else "short",
        showlocals=config.getoption("showlocals"),
        funcargs=True,
        tbfilter=not whole and _of_user,
    )
    shown.reprtraceback.extraline = None  # that internal frames are hidden
    return shown


def _of_user(excinfo: pytest.ExceptionInfo[BaseException]) -> Any:  # noqa: ANN401 - as _shown()
    """Return the part of a traceback that is the user's."""
    return excinfo.traceback.filter(lambda entry: not entry.ishidden(excinfo) and not _is_internal(Path(entry.path)))


def _is_internal(path: Path) -> bool:
    """Whether a file is one of this package or of pytest."""
    if path.is_relative_to(_PACKAGE):
        return not any(path.is_relative_to(each) for each in _USERS)
    return path.name == "_callout_pytest.py" or any(path.is_relative_to(each) for each in _INTERNAL)
