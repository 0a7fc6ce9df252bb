"""``callout top``: what the callout systems of another process do, as a table that is kept up to date.

A system that was opened with ``top=True`` listens at a Unix-domain socket, and writes what it has to tell to whatever
connects (``_worlds/trio/telling``): one line of JSON, and nothing is read. ``_sockets`` has where the sockets are,
``_source`` the other end, ``_table`` what is shown, ``_live`` the table that is kept up to date.
"""

from __future__ import annotations

__all__: list[str] = []
