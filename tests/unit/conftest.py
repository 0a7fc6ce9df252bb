"""What tests of the guest have in common: the loops of asyncio that there are, and what runs a program in one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

Main = Callable[[], Coroutine[Any, Any, None]]
Run = Callable[[Main], None]


@pytest.fixture(params=["asyncio", "uvloop"])
def new_loop(request: pytest.FixtureRequest) -> Callable[[], asyncio.AbstractEventLoop]:
    """Return what makes a loop."""
    if request.param == "asyncio":
        return asyncio.new_event_loop
    uvloop = pytest.importorskip("uvloop")
    make: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return make


@pytest.fixture
def run(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> Run:
    """Return what runs a program, as ``asyncio.run()`` does."""

    def run_it(main: Main) -> None:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(main())

    return run_it
