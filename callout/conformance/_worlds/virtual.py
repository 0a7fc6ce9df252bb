"""A world for replays on the virtual platform."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence

from ..._worlds.virtual.context import Context
from ...testing import VirtualSMP
from .._format import Scenario


class RandomOrder:
    """Picks who runs next at random, repeatably."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - has to repeat, not to be secret

    def choose(self, runnable: Sequence[Context], current: Context | None) -> Context:
        """Pick any."""
        return self._random.choice(runnable)


class _Mailbox:
    """What a thread waits for when it has nothing to do."""

    def __init__(self, name: str) -> None:
        self.label = f"orders for {name}"
        self.orders: deque[Callable[[], None]] = deque()

    def ready(self) -> bool:
        """Whether there is an order."""
        return bool(self.orders)


class _Gate:
    """A gate."""

    def __init__(self, name: str) -> None:
        self.label = f"gate {name}"
        self.is_open = False

    def ready(self) -> bool:
        """Whether it is open."""
        return self.is_open


class VirtualWorld:
    """Threads are greenlets; quiescence is when none can run."""

    def __init__(self, scenario: Scenario, seed: int | None = None) -> None:
        self._vm = VirtualSMP(
            scenario.ncpu,
            chooser=None if seed is None else RandomOrder(seed),
            free_clock=False,
            alloweddeviation=scenario.alloweddeviation,
            max_steps=1_000_000,
        ).__enter__()
        self.machine = self._vm.machine
        self._platform = self._vm.platform
        self._gates: dict[str, _Gate] = {}
        self._mail = {name: _Mailbox(name) for name in scenario.threads}
        for name in scenario.threads:
            self._vm.spawn(self._thread, name, name=name, bound=scenario.thread_cpu.get(name, 0))

    def _thread(self, name: str) -> None:
        mail = self._mail[name]
        while True:
            if not mail.orders:
                self._platform.block(mail)
            mail.orders.popleft()()

    def enter(self, setup: Callable[[], None]) -> None:
        """Run *setup*: this system is current in any case."""
        setup()

    def post(self, thread: str, thunk: Callable[[], None]) -> None:
        """Give a thread an order."""
        self._mail[thread].orders.append(thunk)

    def _gate(self, name: str) -> _Gate:
        return self._gates.setdefault(name, _Gate(name))

    def wait_at_gate(self, gate: str, log: Callable[[], None]) -> None:
        """Block, with the whole CPU."""
        if not self._gate(gate).is_open:
            log()
            self._platform.block(self._gate(gate))

    def open_gate(self, gate: str) -> None:
        """Open it."""
        self._gate(gate).is_open = True

    def tick(self) -> None:
        """Move the virtual time."""
        self._platform.tick(self.machine.tick)

    def settle(self) -> None:
        """Run until nobody can."""
        self._platform.settle()
        for error in self._platform.errors:
            raise error

    def close(self) -> None:
        """Leave the system; the greenlets go with it."""
        self._vm.__exit__(None, None, None)
