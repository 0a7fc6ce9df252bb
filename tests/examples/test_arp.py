"""An entry is refreshed and deleted while its timer fires."""

from __future__ import annotations

import pytest

from callout import callout_pending, callout_stop
from callout.examples.arp import ArpTable, Entry
from callout.testing import Slab, VirtualSMP
from tests.examples.explored import clean, wrong


def refreshed_and_deleted(vm: VirtualSMP) -> None:
    """Delete an entry while another thread refreshes it."""
    slab: Slab[Entry] = Slab("entry")
    with vm.setup():
        table = ArpTable(slab)
        table.add("a")
        vm.spawn(table.refresh, "a", name="refresher")
    table.delete("a")
    vm.settle()

    assert not table.entries
    assert not slab.leaks(), "the entry is never freed"


def test_it_is_freed_exactly_once() -> None:
    """In every schedule the entry is freed when nothing uses it any more."""
    clean(refreshed_and_deleted)


def expires_by_stop(entry: Entry) -> None:
    """Drop the timer's reference at the end of each run that is not followed by another."""
    with entry.table.lock, entry.lock:
        if callout_pending(entry.timer):
            return
        if entry.is_linked:
            entry.table.unlink(entry)
            entry.references -= 1
        last = entry.drop()
    if last:
        entry.table.slab.free(entry)


def deletes_by_stop(table: ArpTable, address: str) -> None:
    """Drop the timer's reference if ``callout_stop()`` says that the callback will not run."""
    with table.lock:
        entry = table.entries.get(address)
        if entry is None:
            return
        with entry.lock:
            table.unlink(entry)
            if callout_stop(entry.timer) > 0:
                entry.references -= 1
            last = entry.drop()
    if last:
        table.slab.free(entry)


def test_to_go_by_the_result_of_stop_leaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """0 comes also for a callback that has left its reference to the next run, which the stop then removes."""
    monkeypatch.setattr(Entry, "expired", expires_by_stop)
    monkeypatch.setattr(ArpTable, "delete", deletes_by_stop)

    wrong(refreshed_and_deleted, 3, "the entry is never freed")


def refreshes_anyway(table: ArpTable, address: str) -> None:
    """Arm the timer of an entry that may have been deleted since it was looked up."""
    entry = table.lookup(address)
    if entry is not None:
        with entry.lock:
            entry.arm()
        entry.release()


def test_to_arm_a_deleted_entry_is_a_use_after_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """The timer is armed, and the entry is freed with it."""
    monkeypatch.setattr(ArpTable, "refresh", refreshes_anyway)

    wrong(refreshed_and_deleted, 2, "was used after it was freed")
