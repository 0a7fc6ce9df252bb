"""Which system is the current one: the one bound here, else the innermost one that is open on this thread's loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import Any

import anyio
import httpx
import hypercorn.config
import hypercorn.trio
import pytest
import trio

from callout import (
    ArgumentValueError,
    Callout,
    CalloutSystem,
    ClosedError,
    LoopError,
    NoSystemError,
    callout_drain,
    callout_init,
    callout_pending,
    callout_reset,
    callout_reset_curcpu,
    callout_stop,
    curcpu,
    hz,
    open_callouts,
)
from callout._core.machine import CURRENT
from callout.testing import VirtualSMP

HOUR = 3_600_000  # ticks


def fresh() -> Callout:
    """Return an mpsafe callout of the current system."""
    c = Callout()
    callout_init(c, 1)
    return c


def ignore(arg: object) -> None:
    """Be a callback that does nothing."""


# -- whatever task asks ------------------------------------------------------------------------------------------------


@pytest.mark.trio
async def test_a_task_that_was_there_before_finds_the_system() -> None:
    """A task that was started before the block finds, while it is open, the system of its loop; then no more."""
    send, receive = trio.open_memory_channel[CalloutSystem | None](0)
    found: list[bool] = []

    async def worker() -> None:
        async for system in receive:
            if system is None:
                with pytest.raises(NoSystemError):
                    fresh()
            else:
                found.append(fresh().c_cpu.machine is system._machine)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker)
        async with open_callouts() as system:
            await send.send(system)
            async with open_callouts() as inner:
                await send.send(inner)  # of several it is the innermost
            await send.send(system)
        await send.send(None)
        send.close()

    assert found == [True] * 3


@pytest.mark.trio
async def test_the_system_of_ones_own_block_goes_before_another_of_the_loop() -> None:
    """A task that has opened a system has that one, also after another task of the loop has opened one."""
    async with trio.open_nursery() as nursery:

        async def other(
            done: trio.Event,
            *,
            task_status: trio.TaskStatus[CalloutSystem] = trio.TASK_STATUS_IGNORED,
        ) -> None:
            async with open_callouts() as system:
                task_status.started(system)
                await done.wait()

        async with open_callouts() as mine:
            done = trio.Event()
            theirs: CalloutSystem = await nursery.start(other, done)

            assert fresh().c_cpu.machine is mine._machine
            assert theirs is not mine

            done.set()


@pytest.mark.trio
async def test_binding_a_task() -> None:
    """bound() in a task of a CPU's loop makes the system current in it, and in what it starts: tasks, and threads."""
    async with open_callouts(hz=100) as outer, open_callouts(hz=1000):
        seen: list[int] = []

        async def child() -> None:
            seen.append(hz())

        with outer.bound() as bound:
            assert bound is outer
            seen.append(hz())
            seen.append(await trio.to_thread.run_sync(hz))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(child)
        seen.append(hz())

    assert seen == [100, 100, 100, 1000]


@pytest.mark.trio
async def test_the_current_cpu_of_what_is_bound() -> None:
    """A thread has the CPU to which it is bound, in each system; a CPU's loop has that CPU."""
    async with open_callouts(3) as a, open_callouts(2) as b:
        seen: list[int] = []

        def thread() -> None:
            with a.bound(2):
                seen.append(curcpu())
                with b.bound(1):
                    seen.append(curcpu())
                    with a.bound():
                        seen.append(curcpu())
                    seen.append(a._platform.current_cpu())
                seen.append(curcpu())

        await trio.to_thread.run_sync(thread)

        assert seen == [2, 1, 0, 2, 2]

        async def there(done: trio.Event) -> None:
            with a.bound():
                seen.append(curcpu())
            with pytest.raises(ArgumentValueError, match="the loop of cpu 1"), a.bound(0):
                pytest.fail("bound")
            a.cpu(0).call(done.set)

        done = trio.Event()
        a.cpu(1).start_soon(there, done)
        await done.wait()

    assert seen[5:] == [1]


@pytest.mark.trio
async def test_two_tasks_of_another_loop_are_bound_to_different_cpus() -> None:
    """Tasks that take turns on a loop of their own keep each its own current CPU."""
    async with open_callouts(3) as system:

        def other_loop() -> list[int]:
            seen: list[int] = []

            async def task(cpu: int) -> None:
                with system.bound(cpu):
                    for _ in range(3):
                        c = fresh()
                        callout_reset_curcpu(c, HOUR, ignore, None)
                        seen.append(int(curcpu() == c.c_cpu.id == cpu))
                        await trio.lowlevel.checkpoint()

            async def main() -> None:
                async with trio.open_nursery() as nursery:
                    for cpu in range(3):
                        nursery.start_soon(task, cpu)

            trio.run(main)
            return seen

        assert await trio.to_thread.run_sync(other_loop) == [1] * 9


@pytest.mark.trio
async def test_a_thread_of_ones_own_has_none() -> None:
    """A thread to which none is bound, and that is no loop, has no system; a closed one is none to bind."""
    async with open_callouts() as system:
        errors: list[str] = []

        def thread() -> None:
            try:
                fresh()
            except NoSystemError as error:
                errors.append(str(error))

        t = threading.Thread(target=thread)
        t.start()
        t.join()

    assert "system.bound()" in errors[0]
    with pytest.raises(ClosedError, match="bound: "), system.bound():
        pytest.fail("bound")
    assert CURRENT.get(None) is None


# -- no trio -----------------------------------------------------------------------------------------------------------


def test_under_asyncio_the_error_says_how() -> None:
    """open_callouts() under asyncio, or anyio's default backend, says that this is an asyncio loop, and what to do."""

    async def main() -> None:
        async with open_callouts():
            pytest.fail("opened")

    for run in (asyncio.run, partial(anyio.run, backend="asyncio")):
        with pytest.raises(LoopError, match=r"asyncio loop.*callout.guest.open_callouts"):
            run(main() if run is asyncio.run else main)  # type: ignore[arg-type]  # one takes the coroutine


def test_without_any_loop_the_error_says_so() -> None:
    """open_callouts() where no loop runs says that trio is missing."""
    opening = open_callouts().__aenter__()
    with pytest.raises(LoopError, match="no trio loop"):
        opening.send(None)


@pytest.mark.parametrize("cpus", [1, 2])
def test_guest_mode(cpus: int) -> None:
    """A system may be opened in trio's guest mode inside an asyncio loop; an asyncio server and clients use it."""
    answers: list[bytes] = []

    async def serve(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, system: CalloutSystem, idle: list[Callout]
    ) -> None:
        """Answer after a callout of ten milliseconds, as a task of asyncio."""
        loop = asyncio.get_running_loop()
        data = await reader.readline()
        fired: asyncio.Future[int] = loop.create_future()
        c = fresh()  # the loop's thread is that of CPU 0, so the system is found here
        idle.append(c)

        def fire(arg: object) -> None:
            loop.call_soon_threadsafe(fired.set_result, curcpu())

        with system.bound():
            callout_reset(c, 10, fire, None)
        writer.write(data + b"%d" % await fired)
        await writer.drain()
        writer.close()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()  # Any: an outcome, which has no name to import
        opened: asyncio.Future[CalloutSystem] = loop.create_future()
        leave: list[Callable[[], object]] = []

        async def guest() -> None:
            async with open_callouts(cpus) as system:
                over = trio.Event()
                token = trio.lowlevel.current_trio_token()
                leave.append(lambda: token.run_sync_soon(over.set))
                opened.set_result(system)
                await over.wait()

        trio.lowlevel.start_guest_run(
            guest,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            done_callback=done.set_result,
            host_uses_signal_set_wakeup_fd=True,
        )
        system = await opened
        callouts: list[Callout] = []
        server = await asyncio.start_server(lambda r, w: serve(r, w, system, callouts), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        for number in range(3):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"hello %d\n" % number)
            answers.append(await reader.read())
            writer.close()
            await writer.wait_closed()
        server.close()
        await server.wait_closed()
        leave[0]()
        (await done).unwrap()
        with pytest.raises(ClosedError):
            callout_reset(callouts[0], 1, ignore, None)

    asyncio.run(main())

    assert answers == [b"hello %d\n0" % number for number in range(3)]


# -- a server whose lifespan has the system ----------------------------------------------------------------------------

Scope = MutableMapping[str, Any]  # Any: as ASGI has it
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class App:
    """An ASGI application whose lifespan opens a system, and whose request handlers use it."""

    def __init__(self, cpus: int) -> None:
        self._cpus = cpus
        self.system: CalloutSystem
        self.closed = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Be called by the server."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            await self._request(scope, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "lifespan.startup"
        async with open_callouts(self._cpus) as self.system:
            await send({"type": "lifespan.startup.complete"})
            assert (await receive())["type"] == "lifespan.shutdown"
        self.closed = True
        await send({"type": "lifespan.shutdown.complete"})

    async def _request(self, scope: Scope, send: Send) -> None:
        """Answer when a callout has fired, and say on which CPU."""
        fired = trio.Event()
        fired_on: list[int] = []
        token = trio.lowlevel.current_trio_token()

        def fire(arg: object) -> None:
            fired_on.append(curcpu())
            token.run_sync_soon(fired.set)

        c = fresh()  # nothing is bound here: the server started this task, not the lifespan's
        callout_reset(c, 5, fire, None)
        await fired.wait()
        await callout_drain(c)
        body = f"{scope['path']} {c.c_cpu.machine is self.system._machine} {fired_on}"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body.encode()})


@pytest.mark.trio
@pytest.mark.parametrize("cpus", [1, 2])
async def test_a_system_opened_in_a_lifespan_is_found_by_request_handlers(cpus: int) -> None:
    """Handlers of a hypercorn server (trio worker) use the system that its lifespan task has opened."""
    app = App(cpus)
    config = hypercorn.config.Config()
    config.bind = ["127.0.0.1:0"]
    config.errorlog = None
    config.accesslog = None
    stop = trio.Event()
    texts: list[str] = []
    async with trio.open_nursery() as nursery:
        binds: list[str] = await nursery.start(
            partial(hypercorn.trio.serve, app, config, shutdown_trigger=stop.wait)  # type: ignore[arg-type]  # its types are of its own
        )
        async with httpx.AsyncClient(base_url=binds[0]) as client, trio.open_nursery() as clients:

            async def get(path: str) -> None:
                texts.append((await client.get(path)).text)

            for number in range(5):
                clients.start_soon(get, f"/{number}")
        stop.set()

    assert sorted(texts) == [f"/{number} True [0]" for number in range(5)]
    assert app.closed


# -- a callout that outlives its system --------------------------------------------------------------------------------


class Kept(Callout):
    """A record of the user's own class."""


@pytest.mark.parametrize("worlds", [("virtual", "real"), ("real", "virtual"), ("virtual", "virtual"), ("real", "real")])
@pytest.mark.parametrize("kind", [Callout, Kept])
def test_a_callout_is_used_again_in_another_world(worlds: tuple[str, str], kind: type[Callout]) -> None:
    """One record, initialised anew, works in any system: what a world adds to its records goes with that world."""
    c = kind()
    ran: list[str] = []

    def use(func: Callable[[str], object], world: str) -> None:
        callout_init(c, 1)
        assert not callout_pending(c)
        assert not callout_reset(c, HOUR, func, world)
        assert callout_pending(c)
        assert callout_stop(c) == 1
        assert not callout_reset(c, 0, func, world)

    async def real() -> None:
        over = trio.Event()

        def func(world: str) -> None:
            ran.append(world)
            over.set()

        async with open_callouts():
            use(func, "real")
            await over.wait()
            assert await callout_drain(c) == -1

    for world in worlds:
        if world == "real":
            trio.run(real)
        else:
            with VirtualSMP() as vm:
                use(ran.append, world)
                vm.settle()
    assert tuple(ran) == worlds
    assert isinstance(c, kind)
