"""The benchmark: the timers of this package against those of event loops. ``callout bench`` runs it.

Every figure is taken in a process of its own: one peer, one size, one round. The processes of a round follow each
other, and each round begins with another peer, so that what the machine does meanwhile meets all alike; what is shown
are medians of the ratios within a round.
"""

__all__: list[str] = []
