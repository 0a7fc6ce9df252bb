"""Seeing functions of this package called: the one profile function that a thread can have, and who else wants it.

From CPython 3.12 on ``sys.monitoring`` watches single functions, and the rest runs as fast as ever. Before, and where
every tool's number is taken, a profile function (``sys.setprofile``) sees all, at three times the time.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from types import CodeType, FrameType
from typing import Any, Final, TypeVar, cast

T = TypeVar("T")

TOOLS: Final = (3, 4)  # that no profiler, debugger or coverage tool has by convention: PEP 669

Profile = Callable[[FrameType, str, object], None]


@contextmanager
def profiled(function: Profile | None) -> Iterator[None]:
    """Have that function in the block, or none, and then what there was before."""
    before: Any = sys.getprofile()
    sys.setprofile(cast("Callable[[FrameType, str, Any], object] | None", function))
    try:
        yield
    finally:
        if before is None or callable(before):
            sys.setprofile(before)
        else:
            before.enable()  # cProfile, up to CPython 3.11


Begin = Callable[[FrameType, T], None]
End = Callable[[FrameType, T, object], None]


@contextmanager
def _profiling(codes: Mapping[CodeType, T], begin: Begin[T], end: End[T]) -> Iterator[None]:
    its = {id(code): it for code, it in codes.items()}  # code has a hash, and it is slow
    before: object = sys.getprofile()
    other = cast("Profile", before) if callable(before) else None  # a profiler that is written in C is no function

    def profile(frame: FrameType, event: str, value: object) -> None:
        it = its.get(id(frame.f_code))
        if it is not None:
            if event == "call":
                begin(frame, it)
            elif event == "return":
                end(frame, it, value)
        if other is not None:
            other(frame, event, value)

    with profiled(profile):
        yield


if sys.version_info >= (3, 12):

    def watched(codes: Mapping[CodeType, T], begin: Begin[T], end: End[T]) -> AbstractContextManager[None]:
        """Have *begin* and *end* called in the block when a function with one of these codes is, and when it has ended.

        The value is None if it has raised. What a profile function of this thread sees, it goes on seeing.
        """
        tool = next((tool for tool in TOOLS if sys.monitoring.get_tool(tool) is None), None)
        return _profiling(codes, begin, end) if tool is None else _monitoring(tool, codes, begin, end)

    @contextmanager
    def _monitoring(tool: int, codes: Mapping[CodeType, T], begin: Begin[T], end: End[T]) -> Iterator[None]:
        monitoring, events = sys.monitoring, sys.monitoring.events
        its = {id(code): it for code, it in codes.items()}

        def start(code: CodeType, offset: int) -> None:
            begin(sys._getframe(1), its[id(code)])

        def back(code: CodeType, offset: int, value: object) -> None:
            end(sys._getframe(1), its[id(code)], value)

        def unwind(code: CodeType, offset: int, error: BaseException) -> None:
            it = its.get(id(code))  # of this one every function is told
            if it is not None:
                end(sys._getframe(1), it, None)

        monitoring.use_tool_id(tool, "callout.explore")
        try:
            monitoring.register_callback(tool, events.PY_START, start)
            monitoring.register_callback(tool, events.PY_RETURN, back)
            monitoring.register_callback(tool, events.PY_UNWIND, unwind)
            monitoring.set_events(tool, events.PY_UNWIND)
            for code in codes:
                monitoring.set_local_events(tool, code, events.PY_START | events.PY_RETURN)
            yield
        finally:
            for code in codes:
                monitoring.set_local_events(tool, code, 0)
            monitoring.set_events(tool, 0)
            for event in (events.PY_START, events.PY_RETURN, events.PY_UNWIND):
                monitoring.register_callback(tool, event, None)
            monitoring.free_tool_id(tool)

else:
    watched = _profiling
