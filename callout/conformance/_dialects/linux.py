"""The Linux ops of the traces, done with the public API of ``callout_linux``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from .._format import Scenario
from .._worlds.world import World
from .freebsd import Dialect

if TYPE_CHECKING:
    from callout_linux.timer import timer_list


class Linux(Dialect):
    """Linux 6.12's timers as a ``Subsystem``."""

    def __init__(self, scenario: Scenario, world: World) -> None:
        # Not at the top: to judge another implementation one need not load this one.
        from callout_linux import timer

        self._linux = timer
        self.timers: dict[str, timer_list] = {}
        super().__init__(scenario, world)
        self.ops |= {
            "add": partial(self._add, timer.add_timer),
            "add_on": lambda name, delta, cpu: self._add(lambda t: timer.add_timer_on(t, cpu), name, delta),
            "mod": partial(self._mod, timer.mod_timer),
            "mod_pending": partial(self._mod, timer.mod_timer_pending),
            "reduce": partial(self._mod, timer.timer_reduce),
            "del": lambda name: timer.timer_delete(self.timers[name]),
            "try_del_sync": lambda name: timer.try_to_del_timer_sync(self.timers[name]),
            "del_sync": lambda name: timer.timer_delete_sync_blocking(self.timers[name]),
            "shutdown": lambda name: timer.timer_shutdown(self.timers[name]),
            "shutdown_sync": lambda name: timer.timer_shutdown_sync_blocking(self.timers[name]),
        }

    def make(self, name: str, how: dict[str, Any]) -> None:
        """Set up a timer."""
        timer = self._linux
        flags = {
            "DEFERRABLE": timer.TIMER_DEFERRABLE,
            "IRQSAFE": timer.TIMER_IRQSAFE,
            "PINNED": timer.TIMER_PINNED,
        }

        def function(t: timer_list) -> None:
            self.callback(name, how["fn"], None)

        self.timers[name] = timer.timer_list()
        timer.timer_setup(self.timers[name], function, sum(flags[flag] for flag in how["flags"]))

    def state(self, callout: str) -> list[int]:
        """Return whether it is pending."""
        return [self._linux.timer_pending(self.timers[callout])]

    def _add(self, add: Callable[[timer_list], None], name: str, delta: int) -> None:
        t = self.timers[name]
        t.expires = self._linux.jiffies + delta
        add(t)

    def _mod(self, mod: Callable[[timer_list, int], int], name: str, delta: int) -> int:
        return mod(self.timers[name], self._linux.jiffies + delta)
