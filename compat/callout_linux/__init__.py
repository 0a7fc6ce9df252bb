"""Linux kernel timers and cross-CPU calls, on the engine of ``callout``.

``timer`` is the API of Linux 6.12, with the older names; ``v2_3`` that of the year 2000; ``smp`` has the cross-CPU
calls. A system has to be open: ``async with callout.open_callouts():``. What was recorded from the real kernel is
what these do (``callout conformance --impl linux``).
"""

if __name__ != "callout_linux":
    # In a checkout, "compat.callout_linux" would be a second copy of it all. "compat" is a folder, not a package.
    raise ImportError("import callout_linux, not " + __name__)

__all__: list[str] = []
