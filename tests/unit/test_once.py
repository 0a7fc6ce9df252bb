"""What a ``with`` or ``async with`` is given is entered once; the calls that return it may be repeated."""

from __future__ import annotations

import pytest
import trio

from callout import (
    ArgumentTypeError,
    BusyError,
    Callout,
    callout_init,
    callout_pending,
    callout_reset,
    draining,
    hz,
    open_callouts,
)


def ignore(arg: object) -> None:
    """Be a callback that does nothing."""


@pytest.mark.trio
async def test_a_system_is_opened_once() -> None:
    """Entering what one open_callouts() has returned again is an error of ours, during its block and after it."""
    opening = open_callouts()
    async with opening as system:
        with pytest.raises(BusyError, match=r"open_callouts: .*call open_callouts\(\) for each block"):
            await opening.__aenter__()

        assert system.hz == hz()

    with pytest.raises(BusyError, match="open_callouts: ") as caught:
        async with opening:
            pytest.fail("opened")

    assert caught.value.call == "open_callouts"


@pytest.mark.trio
async def test_a_draining_block_is_entered_once() -> None:
    """Entering it again is an error, and the first block still drains its callout."""
    async with open_callouts():
        c = Callout()
        callout_init(c, 1)
        block = draining(c)
        async with block:
            callout_reset(c, 1000, ignore, None)
            with pytest.raises(BusyError, match="draining: "):
                await block.__aenter__()

            assert callout_pending(c) == 1

        assert callout_pending(c) == 0


@pytest.mark.parametrize("wrong", [None, 5, Callout, [Callout()]])
def test_what_cannot_be_drained_is_refused_by_the_call(wrong: Callout) -> None:
    """draining() of what is no callout is an error before there is a block that might be left."""
    with pytest.raises(ArgumentTypeError, match="draining: every argument must be a Callout, not"):
        draining(Callout(), wrong)


@pytest.mark.trio
async def test_a_binding_is_entered_once() -> None:
    """Entering what one bound() has returned again is an error, and does not undo the binding."""
    async with open_callouts() as system:

        def bind() -> None:
            binding = system.bound()
            with binding:
                with pytest.raises(BusyError, match="bound: "):
                    binding.__enter__()

                assert hz() == system.hz

            with pytest.raises(BusyError, match="bound: "), binding:
                pytest.fail("entered")
            with pytest.raises(BusyError, match="bound: "):
                binding(ignore)

        await trio.to_thread.run_sync(bind)


@pytest.mark.trio
async def test_as_a_decorator_it_is_a_block_for_each_call() -> None:
    """A decorated function may be called again, and is in the block each time."""
    found: list[int] = []

    @open_callouts(hz=250)
    async def opens(factor: int) -> int:
        return hz() * factor

    assert [await opens(1), await opens(2)] == [250, 500]

    async with open_callouts(hz=100) as system:

        @system.bound()
        def binds() -> None:
            found.append(hz())

        async with open_callouts(hz=200):
            binds()
            binds()

    assert found == [100, 100]


@pytest.mark.trio
async def test_a_missing_async_is_named() -> None:
    """``with`` for ``async with``, an ``await`` in its place, and the reverse: the error has what to write."""
    with (
        pytest.raises(ArgumentTypeError, match=r"^open_callouts: write `async with open_callouts\(\)`, not `with`"),
        open_callouts(),  # type: ignore[attr-defined]  # on purpose
    ):
        pytest.fail("entered")
    with pytest.raises(ArgumentTypeError, match="not `await`"):
        await open_callouts()  # type: ignore[misc]  # on purpose
    async with open_callouts() as system:
        with pytest.raises(ArgumentTypeError, match=r"^bound: write `with bound\(\)`, not `async with`"):
            async with system.bound():  # type: ignore[attr-defined]  # on purpose
                pytest.fail("entered")
        c = system.callout(ignore, None, name="idle")
        with (
            pytest.raises(ArgumentTypeError, match=r"write `async with idle:`; .*close_sync\(\)"),
            c,  # type: ignore[attr-defined]  # on purpose
        ):
            pytest.fail("entered")
        assert not c.closed


@pytest.mark.trio
async def test_a_block_is_left_once() -> None:
    """Leaving it again, or before it was entered, is an error of ours."""
    async with open_callouts() as system:
        block = system.bound()
        with pytest.raises(BusyError, match=r"^bound: .* left already, or was never entered"):
            block.__exit__(None, None, None)
        with block:
            pass
        with pytest.raises(BusyError, match=r"^bound: .* left already"):
            block.__exit__(None, None, None)
