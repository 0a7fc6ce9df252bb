"""One process of the benchmark: ``python -m callout.bench._one PEER SIZE CALLS WORKLOAD ...``.

It prints its figures as JSON.
"""

from __future__ import annotations

import gc
import json
import sys

from ._peer import Steps, make
from ._workloads import WORKLOADS, Load


def measure(name: str, load: Load, workloads: list[str]) -> dict[str, float]:
    """Return the figures of one peer."""
    peer = make(name)
    figures: dict[str, float] = {}

    def body() -> Steps:
        for each in workloads:
            gc.collect()
            figures.update((yield from WORKLOADS[each](peer, load)))

    peer.run(body)
    return figures


if __name__ == "__main__":
    _, name, size, calls, *workloads = sys.argv
    print(json.dumps(measure(name, Load(int(size), int(calls)), workloads)))
