"""A connection is closed by its user while its timers fire, one of which closes it, too."""

from __future__ import annotations

import pytest

from callout import callout_drain_async
from callout.examples import tcp_timer
from callout.examples.tcp_timer import Connection
from callout.testing import Slab, VirtualSMP
from tests.examples.explored import clean, wrong


def closed_while_sending(vm: VirtualSMP) -> None:
    """Close a connection that sends something again, and closes itself if that does not help."""
    slab: Slab[Connection] = Slab("connection")
    with vm.setup():
        connection = slab.alloc(Connection, slab)
        connection.send()
    connection.close()
    vm.settle()

    assert not slab.leaks(), "the connection is never freed"


def closed_while_idle(vm: VirtualSMP) -> None:
    """Close a connection whose keep-alive timer arms itself again and again."""
    slab: Slab[Connection] = Slab("connection")
    with vm.setup():
        connection = slab.alloc(Connection, slab)
        connection.open()
    connection.close()
    vm.settle()

    assert not slab.leaks(), "the connection is never freed"


def test_it_is_freed_exactly_once() -> None:
    """In every schedule the last of the user and the completions frees it."""
    clean(closed_while_sending)


def test_it_is_freed_exactly_once_though_a_timer_arms_itself() -> None:
    """So it is with the keep-alive timer."""
    clean(closed_while_idle)


def test_the_opposite_sense_leaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """``callout_async_drain()`` of FreeBSD 11 returns 0 when the completion will be called; read so, a reference that
    nobody drops is added.
    """

    def discard(connection: Connection) -> None:
        connection.is_closed = True
        for c in (connection.retransmit, connection.keepalive):
            if callout_drain_async(c, Connection.drained, connection) == 0:
                connection.references += 1

    monkeypatch.setattr(Connection, "discard", discard)

    wrong(closed_while_idle, 0, "the connection is never freed")


def test_without_a_reference_for_the_user_it_is_freed_too_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """A timer closes the connection and it is freed, and then the user closes it."""

    def close(connection: Connection) -> None:
        with connection.lock:
            connection.discard()
            last = connection.references == 0
        if last:
            connection.slab.free(connection)

    def discard(connection: Connection) -> None:
        if not connection.is_closed:
            connection.references = 0
        all_of_it(connection)

    all_of_it = Connection.discard
    monkeypatch.setattr(tcp_timer, "MOST", 1)
    monkeypatch.setattr(Connection, "close", close)
    monkeypatch.setattr(Connection, "discard", discard)

    wrong(closed_while_sending, 1, "was used after it was freed")
