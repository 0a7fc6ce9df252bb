"""A device is stopped, and detached, while its watchdog ticks and frames are sent."""

from __future__ import annotations

import pytest

from callout import callout_reset
from callout.examples.watchdog import HZ, PATIENCE, Device
from callout.testing import Slab, VirtualSMP
from tests.examples.explored import clean, wrong


def started(vm: VirtualSMP, slab: Slab[Device]) -> Device:
    """Return a device that is running, with a frame on its way."""
    with vm.setup():
        device = slab.alloc(Device, slab)
        device.start()
        device.transmit()
    return device


def detached(vm: VirtualSMP) -> None:
    """Detach a device whose watchdog ticks."""
    slab: Slab[Device] = Slab("device")
    started(vm, slab).detach()
    vm.settle()

    assert not slab.leaks()


def stopped(vm: VirtualSMP) -> None:
    """Stop a device while another thread sends; when all is quiet, detach it."""
    slab: Slab[Device] = Slab("device")
    device = started(vm, slab)
    with vm.setup():
        vm.spawn(device.transmit)
    device.stop()
    vm.settle()
    device.detach()

    assert not slab.leaks()


def test_it_can_be_detached_at_any_moment() -> None:
    """In every schedule nothing is used after the drain."""
    clean(detached)


def test_it_can_be_stopped_at_any_moment() -> None:
    """In every schedule with two preemptions nothing arms the watchdog after the stop. Three take ten times as long."""
    clean(stopped, 2)


def test_a_device_that_hangs_is_reset() -> None:
    """When a frame was not sent in so many calls of the watchdog, the device is reset, and goes on."""
    with VirtualSMP(cpus=1, free_clock=False) as vm:
        device = Slab[Device]("device").alloc(Device, Slab[Device]("device"))
        device.start()
        device.transmit()
        vm.tick(PATIENCE * HZ)

        assert device.resets == 1
        assert device.is_running


def test_to_free_after_the_stop_is_a_use_after_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """Softclock may stand at the mutex, though the callback is cancelled."""

    def detach(device: Device) -> None:
        device.stop()
        device.slab.free(device)

    monkeypatch.setattr(Device, "detach", detach)

    wrong(detached, 1, "its lock 'device' was acquired")


def test_to_arm_without_a_look_keeps_the_watchdog_going(monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame that is sent after the stop starts the watchdog, and nothing ends it."""

    def transmit(device: Device) -> None:
        with device.mtx:
            callout_reset(device.tick_callout, HZ, Device.tick, device)

    monkeypatch.setattr(Device, "transmit", transmit)

    wrong(stopped, 0, "no end after 2000 steps", steps=2000)
