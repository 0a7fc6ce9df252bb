"""Runs the demo."""

from __future__ import annotations

import argparse
import gc
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Final

import trio

from callout import CalloutSystem, open_callouts
from callout._files import try_writing
from callout._terminal import BAD, GOOD, Line, say, width

from ._options import STOP_AND_FREE, add_arguments, options_of
from ._pcb import HZ
from ._report import Report, live_line
from ._resources import Held, LimitError, descriptors_for
from ._service import Service
from ._site import Site

UNUSABLE: Final = 2
LINE_SECONDS: Final = 0.25  # between two states of the live line
BACKLOG: Final = 1024

__all__ = ["add_arguments", "main"]


def main(args: argparse.Namespace) -> int:
    """Run the demo as *args*, parsed by a parser that was given to ``add_arguments()``, say. Blocks until it is over.

    Returns the exit status: 0 if every control block was freed once and nothing was used or left behind, 1 if not, 2
    if there are not enough file descriptors; 130 after Ctrl-C, which ends the run with its table, if that is clean.
    """
    options = options_of(args)
    if args.no_stage and options.teardown != STOP_AND_FREE:
        print(f"callout demo: --no-stage is about --teardown {STOP_AND_FREE}", file=sys.stderr)
        return UNUSABLE
    if options.trace is not None:
        try:
            try_writing(Path(options.trace))
        except OSError as error:
            return _unwritable(options.trace, error)
    service = Service(options)
    before = Held.now()
    try:
        with descriptors_for(options.connections, options.cpus, before):
            trio.run(_run, service)
    except LimitError as error:
        print(f"callout demo: {error}", file=sys.stderr)
        return UNUSABLE
    except KeyboardInterrupt:  # it came before the handler was there, or after it had gone
        service.interrupted = True
    report = Report(service, before, Held.now())
    if options.json:
        print(report.json())
    else:
        for line in report.text().splitlines():
            ended = line.removeprefix("interrupted; ")
            say(line, GOOD if ended.startswith("CLEAN: ") else BAD if ended.startswith("FAILED: ") else "")
    if service.untraced is not None:
        return _unwritable(options.trace, service.untraced)
    return report.status()


def _unwritable(file: str | None, error: OSError) -> int:
    print(f"callout demo: --trace: {file!r} cannot be written: {error.strerror}", file=sys.stderr)
    return UNUSABLE


async def _run(service: Service) -> None:
    options = service.options
    # Only checking mode notes where callouts were armed, for the report, and which locks are held, for a trace.
    checking = options.teardown == STOP_AND_FREE or options.trace is not None
    async with _interrupts(service):
        # Outside: the system waits for the sites, which accept until they are told to stop.
        with socket.create_server(("127.0.0.1", 0), backlog=BACKLOG) as listener:
            listener.setblocking(False)
            async with open_callouts(
                options.cpus, HZ, checking=checking, on_error=service.on_error, top=options.top
            ) as system:
                service.bind(system)
                served = False
                try:
                    with nullcontext() if options.trace is None else system.tracing(options.trace, where=True):
                        await _serve(service, system, listener)
                        served = True
                except OSError as error:
                    if not served:
                        raise
                    service.untraced = error


@asynccontextmanager
async def _interrupts(service: Service) -> AsyncIterator[None]:
    """Have Ctrl-C end the run, instead of a KeyboardInterrupt that may be raised in the middle of a callback."""
    if threading.current_thread() is not threading.main_thread():
        yield  # then it is not ours, and Python lets only the main thread take signals
        return
    with trio.open_signal_receiver(signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:

            async def listen() -> None:
                async for _ in signals:
                    service.interrupt()

            nursery.start_soon(listen)
            yield
            nursery.cancel_scope.cancel()


async def _serve(service: Service, system: CalloutSystem, listener: socket.socket) -> None:
    """Start the sites, wait until the run is over, and end them; the system waits until they have ended."""
    options = service.options
    share, more = divmod(options.connections, options.cpus)
    sites = [Site(service, system.cpu(number), listener, share + (number < more)) for number in range(options.cpus)]
    for number, site in enumerate(sites):
        system.cpu(number).start_soon(site.run)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_show, service)
            nursery.start_soon(_time, service, system)
            await service.over.wait()
            nursery.cancel_scope.cancel()
    finally:
        gc.unfreeze()
        if service.stage is not None:
            service.stage.close()
        for number, site in enumerate(sites):
            system.cpu(number).call(site.stop)


async def _time(service: Service, system: CalloutSystem) -> None:
    """End the run when its time has come. A race that is to be staged gets the time that it needs."""
    await service.full.wait()
    # What is there now stays. Else the garbage collector looks at all of it now and then, and nothing runs meanwhile:
    # 200 ms for 2000 connections.
    gc.freeze()
    if service.stage is not None:
        service.stage.set_up(system)
        await trio.sleep_forever()  # the use after free ends the run
    await trio.sleep(service.options.seconds)
    service.over.set()


async def _show(service: Service) -> None:
    """Keep one line of figures on a terminal."""
    line = Line(sys.stdout)
    if service.options.json or not line.seen:
        return
    try:
        while True:
            line.draw(live_line(service, width()))
            await trio.sleep(LINE_SECONDS)
    finally:
        line.clear()
