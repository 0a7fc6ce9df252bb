"""A table of entries that expire: each has a timer, and a count of references.

An entry is in use by the table, by its timer, and by whatever has looked it up. There are as many references, and
whatever drops the last one frees the entry. Nobody waits.

The timer's reference is dropped when nothing of the timer is outstanding any more: by the callback if the entry
expires, and else by the code that deletes the entry, or by the completion of its ``callout_drain_async()``.

It looks simpler to let ``callout_stop()`` say who drops it, the deleting code if it returns more than 0, and otherwise
the callback, which runs. But a callback *runs* for the kernel until softclock has noted that it has returned. One that
was done with the entry, and has left the reference to the next run because the entry had been refreshed, still makes
the stop say 0, and the stop removes that next run: nobody drops the reference. Exploring finds it, with three
preemptions: tests/examples/test_arp.py has that variant.

The callout has no lock of its own: the callback acquires the table's lock first, then the entry's, as all code here.

Source: sys/netinet/if_ether.c, arptimer(); sys/net/if_llatbl.c, llentry_free().
"""

from __future__ import annotations

from typing import Final

from .. import Callout, Mtx, callout_drain_async, callout_init, callout_pending, callout_reset
from ..testing import Slab

__all__ = ["LIFETIME", "ArpTable", "Entry"]

LIFETIME: Final = 20 * 60 * 1000  # ticks


class Entry:
    """A neighbour's address, and the time until which it is believed."""

    def __init__(self, table: ArpTable, address: str) -> None:
        self.table = table
        self.address = address
        self.lock = Mtx("entry")
        self.timer = Callout()
        callout_init(self.timer, 1)
        self.references = 2  # the table's and the timer's
        self.is_linked = True

    def arm(self) -> None:
        """Start the timer, or start it anew. The lock is held, and the entry is linked."""
        callout_reset(self.timer, LIFETIME, Entry.expired, self)

    def drop(self) -> bool:
        """Drop a reference, and return whether it was the last one. The lock is held."""
        self.references -= 1
        return self.references == 0

    def release(self) -> None:
        """Drop a reference; the last one frees. Also the completion: nothing of the timer is outstanding any more."""
        with self.lock:
            last = self.drop()
        if last:
            self.table.slab.free(self)

    def expired(self) -> None:
        """Be the callback: remove the entry, unless it was deleted or refreshed since the timer expired."""
        with self.table.lock, self.lock:
            if not self.is_linked or callout_pending(self.timer):
                return
            self.table.unlink(self)
            self.references -= 1  # the table's
            last = self.drop()  # the timer's
        if last:
            self.table.slab.free(self)


class ArpTable:
    """Entries by address."""

    def __init__(self, slab: Slab[Entry]) -> None:
        self.slab = slab
        self.lock = Mtx("table")
        self.entries: dict[str, Entry] = {}

    def add(self, address: str) -> None:
        """Add an entry, and start its timer."""
        with self.lock:
            entry = self.entries[address] = self.slab.alloc(Entry, self, address)
            with entry.lock:
                entry.arm()

    def lookup(self, address: str) -> Entry | None:
        """Return the entry of that address, with a reference for the caller, or None."""
        with self.lock:
            entry = self.entries.get(address)
            if entry is not None:
                with entry.lock:
                    entry.references += 1
        return entry

    def refresh(self, address: str) -> None:
        """Something has come from there: the entry lives on."""
        entry = self.lookup(address)
        if entry is None:
            return
        with entry.lock:
            if entry.is_linked:  # else it was deleted, or has expired, meanwhile
                entry.arm()
        entry.release()

    def delete(self, address: str) -> None:
        """Remove the entry of that address, if there is one."""
        with self.lock:
            entry = self.entries.get(address)
            if entry is None:
                return
            with entry.lock:
                self.unlink(entry)
                if callout_drain_async(entry.timer, Entry.release, entry) == 0:
                    entry.references -= 1  # the timer's
                last = entry.drop()  # the table's
        if last:
            self.slab.free(entry)

    def unlink(self, entry: Entry) -> None:
        """Remove an entry from the table. Its lock and the table's are held."""
        entry.is_linked = False
        del self.entries[entry.address]
