"""One CPU's share of the service: it accepts connections, handles them, and runs its clients, all in its own loop."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import trio

from callout import CpuHandle, UseAfterFree

from ._pcb import DATA, FRAME, PROBE, Pcb
from ._service import Service

DIALS: Final = 32  # connects at a time on one CPU, so that the backlog of the listener is never full
ACCEPTS: Final = 32  # at a time; one would be one for each turn of a busy loop
ACCEPT_PAUSE: Final = 0.05  # seconds, when there are no descriptors left


class Site:
    """What runs on one CPU."""

    def __init__(self, service: Service, cpu: CpuHandle, listener: socket.socket, clients: int) -> None:
        self._service = service
        self._cpu = cpu
        self._listener = listener
        self._clients = clients
        self._connecting = clients
        self._scope = trio.CancelScope()
        self._dials: trio.CapacityLimiter
        self._began = time.monotonic()

    def stop(self) -> None:
        """End everything here. On this CPU's loop; also before ``run`` has begun."""
        self._scope.cancel()

    async def run(self) -> None:
        """Serve until stopped."""
        self._dials = trio.CapacityLimiter(DIALS)
        if not self._clients:
            self._service.up(self._began)
        with self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._accept, nursery)
                for number in range(self._clients):
                    nursery.start_soon(self._client, f"{self._cpu.id}/{number}")

    # -- server --------------------------------------------------------------------------------------------------

    async def _accept(self, nursery: trio.Nursery) -> None:
        # All CPUs accept from the one listening socket, so the kernel spreads the connections over them.
        while True:
            await trio.lowlevel.wait_readable(self._listener)
            try:
                for _ in range(ACCEPTS):
                    sock, _address = self._listener.accept()
                    nursery.start_soon(self._handle, sock)
            except BlockingIOError:  # that was all, or another CPU was faster
                continue
            except OSError:  # no descriptors, or the client is gone again
                await trio.sleep(ACCEPT_PAUSE)

    async def _handle(self, sock: socket.socket) -> None:
        """Serve one connection."""
        with sock:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                await self._serve(sock)
            except UseAfterFree as error:
                self._service.on_error(error)

    async def _serve(self, sock: socket.socket) -> None:
        service = self._service
        number = next(service.numbers)
        rng = random.Random(f"{service.options.seed}/server/{number}")  # noqa: S311 - to be repeated, not to be secret
        scope = trio.CancelScope(deadline=trio.current_time() + rng.expovariate(1 / service.options.server_life))
        pcb = service.slab.alloc(Pcb, service, number, sock, self._leaver(scope))
        service.here().opened += 1
        service.most = max(service.most, service.open)
        by = "end of the run"
        try:
            with scope:
                await self._echo(pcb, trio.socket.from_stdlib_socket(sock), rng)
                by = "client"
            if scope.cancelled_caught:
                by = "server"
        except OSError:
            by = "client"  # it is gone
        finally:
            with pcb.lock:
                pcb.close(by)  # unless the idle timer has: then that was why the echo has ended
            await service.teardown.finish(pcb)

    def _leaver(self, scope: trio.CancelScope) -> Callable[[], None]:
        """Return a function that has the handler close its connection, from any thread."""
        cpu = self._cpu
        return lambda: cpu.call(scope.cancel)

    async def _echo(self, pcb: Pcb, stream: trio.socket.SocketType, rng: random.Random) -> None:
        """Send back what comes, until the end of file."""
        cpus = self._service.options.cpus
        rest = b""
        while data := await stream.recv(1024):
            # One time in eight to another CPU, or to the same one again, so that moves happen under load.
            pcb.heard(rng.randrange(8 * cpus))
            frames, rest = _frames(rest + data)
            echo = b"".join(frame for frame in frames if frame.startswith(DATA))
            if echo:
                await _send_all(stream, echo)
                pcb.echoed(echo[-FRAME.size :])

    # -- clients -------------------------------------------------------------------------------------------------

    async def _client(self, name: str) -> None:
        """Keep one connection open: when it is closed, open the next."""
        service = self._service
        rng = random.Random(f"{service.options.seed}/client/{name}")  # noqa: S311 - as above
        address = self._listener.getsockname()
        connected = False
        while True:
            with trio.socket.socket() as stream:
                try:
                    async with self._dials:
                        await stream.connect(address)
                except OSError:
                    service.here().refused += 1
                    await trio.sleep(rng.random() / 10)
                    continue
                if not connected:
                    connected = True
                    self._connecting -= 1
                    if not self._connecting:
                        service.up(self._began)
                stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with suppress(OSError):  # reset by the server
                    await self._talk(stream, rng)

    async def _talk(self, stream: trio.socket.SocketType, rng: random.Random) -> None:
        """Send a message now and then, and reply to probes; in the end hang up, or say nothing more and be hung
        up on.
        """
        options = self._service.options
        end = trio.current_time() + rng.expovariate(1 / options.client_life)
        silent = False
        sent = 0
        rest = b""
        while True:
            pause = rng.expovariate(1 / options.pause)
            with trio.move_on_at(min(trio.current_time() + pause, end)):
                while data := await stream.recv(1024):
                    frames, rest = _frames(rest + data)
                    if not silent and any(frame.startswith(PROBE) for frame in frames):
                        await _send_all(stream, FRAME.pack(PROBE, sent))
                return
            if trio.current_time() >= end:
                if rng.random() < 0.5:
                    return
                silent = True
                end = float("inf")
            if not silent:
                sent += 1
                self._service.here().messages += 1
                await _send_all(stream, FRAME.pack(DATA, sent))


def _frames(data: bytes) -> tuple[list[bytes], bytes]:
    """Return the whole frames at the beginning of *data*, and what is left."""
    size = FRAME.size
    whole = len(data) // size * size
    return [data[at : at + size] for at in range(0, whole, size)], data[whole:]


async def _send_all(stream: trio.socket.SocketType, data: bytes) -> None:
    while data:
        data = data[await stream.send(data) :]
