"""Linux kernel timers (timer, smp and the 2.3 API) on top of callout."""

__all__: list[str] = []
