"""Objects that have timers, and come apart safely: small versions of what FreeBSD's kernel does with callout(9).

Each module is one way to do it, written as an application would write it, with the public names only:

- ``arp``: a table of entries with a reference count; the timer holds a reference;
- ``evfilt_timer``: a periodic timer that arms itself again, and can be modified while it runs; ``callout_drain()``;
- ``watchdog``: a device with a mutex that its callout shares; stop under the mutex, drain to detach;
- ``tcp_timer``: a connection that must not wait, with several ``CALLOUT_TRYLOCK`` callouts; ``callout_drain_async()``.

All memory comes from a ``Slab``, so that a mistake would be found; tests/examples explores each, and wrong variants of
each. They are written from what the kernel's code means, and share no text with it.
"""

from __future__ import annotations

__all__: list[str] = []
