"""Handing parts of a search to the workers of an executor: what that can go wrong with, and when to stop.

The executor is the caller's: it is never shut down here. Whatever ends the search, what has not begun is cancelled.
What runs in a worker cannot be stopped, and ends by itself in a moment, since no part is long.
"""

from __future__ import annotations

import concurrent.futures
import pickle
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

from .._core.describe import shown
from .._core.errors import ArgumentTypeError, ArgumentValueError, CalloutError

P = ParamSpec("P")
T = TypeVar("T")


class Workers:
    """An executor, for one search."""

    def __init__(self, executor: Executor, scenario: object) -> None:
        self._executor = executor
        self._scenario = scenario
        self._futures: set[Future[Any]] = set()
        if isinstance(executor, concurrent.futures.ProcessPoolExecutor):
            self._check_scenario()
        self.submit(_begin)  # a worker may take longer to begin than a small search takes

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Cancel what has not begun."""
        for future in self._futures:
            future.cancel()

    def submit(self, func: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have a worker call a function."""
        try:
            future = self._executor.submit(func, *args, **kwargs)
        except BrokenExecutor as error:
            raise _broken() from error
        except RuntimeError as error:
            raise ArgumentValueError(
                f"explore: the executor takes no work, {error}; call explore() inside of its with block",
                call="explore",
            ) from error
        except Exception:
            self._check_scenario()  # some pickle what they are given at once
            raise
        self._futures.add(future)
        return future

    def result(self, future: Future[T], wait: float | None) -> T | None:
        """Return what a worker returns; None if it takes longer than so many seconds."""
        try:
            future.exception(wait)
        except TimeoutError:
            return None
        except CancelledError:
            pass
        try:
            result = future.result()
        except BrokenExecutor as error:
            raise _broken() from error
        except CancelledError as error:
            raise CalloutError(
                "explore: the executor was shut down, or has cancelled a part of the search; call explore() inside of "
                "its with block",
                call="explore",
            ) from error
        except Exception:
            self._check_scenario()
            raise
        self._futures.discard(future)
        return result

    def _check_scenario(self) -> None:
        try:
            pickle.dumps(self._scenario)
        except Exception as error:
            raise ArgumentTypeError(
                f"explore: the executor's workers are other processes, and the scenario {shown(self._scenario)} cannot "
                f"be sent to them ({error}); give a function of a module, not a lambda nor one that is defined in "
                "another function, or a functools.partial of one",
                call="explore",
            ) from error


def _broken() -> CalloutError:
    return CalloutError(
        "explore: a worker of the executor has ended before its part of the search had: it was killed, has run out of "
        "memory, or could not import the scenario's module (a script needs `if __name__ == '__main__':` around what it "
        "does); make a new executor",
        call="explore",
    )


def _begin() -> None:
    """Be what a worker does first."""
