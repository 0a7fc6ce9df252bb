"""The pytest session in which the mutants run: all tests are collected once, and each mutant gets a child of that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest

from tests.mutants.killers import Test, tests

FOLDERS = ("tests/unit", "tests/conformance", "tests/compat", "tests/race", "tests/threads")


class Instead:
    """Runs something instead of the tests that were collected."""

    def __init__(self, work: Callable[[list[Test]], None]) -> None:
        self.work = work
        self.error: BaseException | None = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Do the work."""
        capture = session.config.pluginmanager.getplugin("capturemanager")
        assert capture is not None
        capture.suspend_global_capture(in_=True)
        try:
            self.work(tests(session.items))
        except BaseException as error:
            self.error = error
        capture.resume_global_capture()
        return True


# The package is imported before pytest is, and pytest would have rewritten its asserts: it is its plugin.
IMPORTED: Final = ("-W", "ignore::pytest.PytestAssertRewriteWarning")


def with_tests(folders: list[str], work: Callable[[list[Test]], None]) -> None:
    """Collect the tests in *folders*, and have *work* done with them."""
    instead = Instead(work)
    options = ["-q", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-o", "faulthandler_timeout=0", "-s", *IMPORTED]
    status = pytest.main([*options, *folders], [instead])
    if instead.error is not None:
        raise instead.error
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        raise SystemExit(int(status))
