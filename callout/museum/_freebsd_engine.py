"""Races in the design of FreeBSD's callout engines: what a drain promises, and what re-arming does to it.

The engine of these models is that of the rewrite of 2015, for one CPU, cut down to what matters: ``cc`` is the CPU,
with its lock, the queue of one place, the current callout, and who is told when that has returned. Softclock runs what
is queued, twice at most, as the callback re-arms once at most.

Invariants: each completion that was promised is called exactly once, after the last step of the callback, with no lock
held; nothing is used after it was freed; what is freed is freed once, and not forgotten.
"""

from __future__ import annotations

from typing import Final, Literal

from .._worlds.virtual.models import is_freed
from ..testing import VirtualSMP
from ._exhibit import Exhibit, Variant
from ._freebsd import MAIL, Scenario

Slots = Literal["one", "one, asserted", "list"]

FIRST: Final = "the first drain"
SECOND: Final = "the second drain"


# -- who is told -------------------------------------------------------------------------------------------------------


def two_drainers(slots: Slots, *, second_waits: bool) -> Scenario:
    """Return the scenario of two drains of a callback that runs.

    *slots*: where the CPU keeps who is to be told. *second_waits*: the second one is synchronous.
    """

    def scenario(vm: VirtualSMP) -> None:
        nobody: tuple[str, ...] = ()
        with vm.setup():
            cc_lock = vm.lock("cc")
            cc = vm.struct("cc", current=True, told=nobody)
            promised = vm.cell(nobody, "promised")
            completed = vm.cell(nobody, "completed")
            returned = vm.cell(False, "the callback has returned")

        def complete(name: str) -> None:
            assert returned.value, f"{name} is completed while the callback runs"
            with cc_lock:  # a completion may use callouts: no lock of the engine is held
                completed.update(lambda names: (*names, name))

        def softclock() -> None:
            returned.value = True  # the end of the callback
            with cc_lock:
                cc.current = False
                told = cc.told
            for name in told:
                complete(name)

        def drain_async(name: str) -> bool:
            with cc_lock:
                if not cc.current:
                    return False
                told = cc.told
                assert slots != "one, asserted" or not told, f"panic: {name} finds that {told[0]} is registered"
                cc.told = (*told, name) if slots == "list" else (name,)
                promised.update(lambda names: (*names, name))
            return True

        def drain(name: str) -> None:
            if drain_async(name):
                vm.wait_until(lambda: name in completed.value, f"the end of {name}")

        vm.spawn(softclock)
        vm.spawn(drain_async, FIRST, name="first")
        vm.spawn(drain if second_waits else drain_async, SECOND, name="second")
        vm.settle()

        missing = sorted(set(promised.value) - set(completed.value))
        assert not missing, f"{' and '.join(missing)} was promised a completion, and never gets it"
        assert len(completed.value) == len(promised.value), f"completed are {', '.join(completed.value)}"

    return scenario


def rearmed_while_drained(*, clears: bool, refuses: bool) -> Scenario:
    """Return the scenario of a callback that re-arms its callout while that is drained and, at the end, freed.

    *clears*: the drain removes what is armed. *refuses*: while a drain is outstanding nothing is armed.
    """

    def scenario(vm: VirtualSMP) -> None:
        with vm.setup():
            cc_lock = vm.lock("cc")
            cc = vm.struct("cc", queued=True, current=False, drained=False)
            c = vm.struct("c", func="callback")

        def reset() -> None:
            with cc_lock:
                if refuses and cc.drained:
                    return
                c.func = "callback"
                cc.queued = True

        def softclock() -> None:
            for run in (1, 2):
                with cc_lock:
                    if not cc.queued:
                        return
                    assert c.func == "callback"
                    cc.queued = False
                    cc.current = True
                if run == 1:
                    reset()  # in the callback
                with cc_lock:
                    cc.current = False
                    drained = cc.drained
                    cc.drained = False
                if drained:
                    vm.free(c)  # the completion

        def drain_async() -> bool:
            with cc_lock:
                if clears or not cc.current:
                    cc.queued = False
                if cc.current:
                    cc.drained = True
                return bool(cc.current)

        def destroyer() -> None:
            if not drain_async():
                vm.free(c)

        vm.spawn(softclock)
        vm.spawn(destroyer)
        vm.settle()
        assert is_freed(c), "nobody has freed the callout"

    return scenario


# -- two that close ----------------------------------------------------------------------------------------------------


def two_closers(*, yields: bool, looks_again: bool) -> Scenario:
    """Return the scenario of a callback and two threads that close its connection at the same time.

    *yields*: the callback releases the lock of the connection and acquires it again, and a thread that finds it running
    releases the lock, too, for it to go on. *looks_again*: after that the thread looks once more whether it is closed.
    """

    def scenario(vm: VirtualSMP) -> None:
        with vm.setup():
            lock = vm.lock("connection")
            state = vm.struct("the callout", queued=True, running=False)
            closed = vm.cell(False, "closed")
            connection = vm.struct("the connection", segments=0)

        def softclock() -> None:
            with lock:
                if not state.queued:
                    return
                state.queued = False
                state.running = True
                if yields:
                    lock.release()  # to enter what must be entered without the lock
                    lock.acquire()
                if not closed.value:
                    connection.segments = 1
                state.running = False

        def close() -> None:
            with lock:
                if closed.value:
                    return
                state.queued = False
                if state.running:
                    lock.release()  # let the callback through
                    lock.acquire()
                    if looks_again and closed.value:
                        return
                closed.value = True
                vm.free(connection)

        vm.spawn(softclock)
        vm.spawn(close, name="packet")
        vm.spawn(close, name="user")
        vm.settle()
        assert is_freed(connection), "nobody has freed the connection"

    return scenario


EXHIBITS: Final[tuple[Exhibit, ...]] = (
    Exhibit(
        number="R4.4",
        title="one place for a completion, and two drains",
        story=(
            "In the engine of the rewrite each CPU has one field for the function that is to be called when the "
            "current callback has returned. A second drain of the same run overwrites the first. The first drainer was "
            "promised a call and never gets it: what it keeps for that call is leaked. If it is a synchronous drain, "
            "it sleeps for ever. FreeBSD later had an assertion there, which makes the second drain a panic. With a "
            "list both are told."
        ),
        sources=(MAIL, "kern_timeout.c, exec.drain_fn and cc_exec_drain()"),
        variants=(
            Variant(
                "one-slot",
                "one field, and two asynchronous drains",
                two_drainers("one", second_waits=False),
                breaks="was promised a completion, and never gets it",
            ),
            Variant(
                "one-slot-sync",
                "one field, and an asynchronous and a synchronous drain",
                two_drainers("one", second_waits=True),
                breaks="was promised a completion, and never gets it",
            ),
            Variant(
                "one-slot-asserted",
                "one field, and an assertion that it is not in use",
                two_drainers("one, asserted", second_waits=False),
                breaks="panic: ",
            ),
            Variant("list", "a list, and two asynchronous drains", two_drainers("list", second_waits=False)),
            Variant(
                "list-sync",
                "a list, and an asynchronous and a synchronous drain",
                two_drainers("list", second_waits=True),
            ),
        ),
    ),
    Exhibit(
        number="R4.5",
        title="armed again while it is drained",
        story=(
            "A callback re-arms its callout. Another thread asks for an asynchronous drain and frees the callout in "
            "the completion. There are two ways to go wrong. If the callback has re-armed before the drain, and the "
            "drain leaves that arming standing, then an armed callout is freed. If it re-arms after the drain, and the "
            "reset is accepted, the same happens. Review D7135 of FreeBSD is about this. A drain must do both: remove "
            "what is armed, and refuse what would be armed until the completion was called."
        ),
        sources=(MAIL, "FreeBSD review D7135, on armings during an asynchronous drain"),
        variants=(
            Variant(
                "arming-kept",
                "the drain leaves what was armed before it",
                rearmed_while_drained(clears=False, refuses=True),
                breaks="c.func, which softclock has freed",
                preemptions=1,
            ),
            Variant(
                "arming-accepted",
                "a reset after the drain is accepted",
                rearmed_while_drained(clears=True, refuses=False),
                breaks="c.func, which softclock has freed",
                preemptions=1,
            ),
            Variant(
                "clears-and-refuses",
                "the drain removes what is armed, and a reset after it is refused",
                rearmed_while_drained(clears=True, refuses=True),
            ),
        ),
    ),
    Exhibit(
        number="R4.10",
        title="three threads: a lock that is yielded goes to the wrong one",
        story=(
            "FreeBSD's TCP timer ran with the lock of its connection, released it and acquired it again. A thread that "
            "closed the connection and found the timer running released the lock as well, so that the timer could go "
            "on. With two such threads, a packet that arrives and a system call of the user, the lock may go from one "
            "of them to the other, not to the timer. Both have seen that the connection is open. Both close it. The "
            "commit of 2024 uses CALLOUT_TRYLOCK: the callback keeps the lock, so nobody has to yield. To look again "
            "after each acquisition is a remedy, too."
        ),
        sources=("FreeBSD commit bffebc336f4e (Gleb Smirnoff, 2024), review D45747",),
        variants=(
            Variant(
                "yields",
                "the callback and the closing threads release the lock and acquire it again",
                two_closers(yields=True, looks_again=False),
                breaks="a double free",
                preemptions=2,
            ),
            Variant(
                "keeps",
                "the callback keeps the lock, so nobody finds it running",
                two_closers(yields=False, looks_again=False),
            ),
            Variant(
                "looks-again",
                "each looks again whether it is closed after it has acquired the lock again",
                two_closers(yields=True, looks_again=True),
            ),
        ),
    ),
)
