"""``callout demo``: a TCP echo service that lives on callouts, and its clients, in one process over real sockets.

Every connection has a control block (``_pcb``) with three callouts under one mutex, as TCP's have. Traffic re-arms
them on changing CPUs; client, server or timer tears the connection down at a random moment. What this is about is in
``_teardown``: how to free a control block whose callouts may be running right now, on another CPU.

Each CPU of the callout system runs its share of server and clients in its own loop (``_site``). ``_report`` has the
verdict.
"""

from __future__ import annotations

from ._main import add_arguments, main

__all__ = ["add_arguments", "main"]
