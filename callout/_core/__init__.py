"""The engine: no trio, no threads, no logging, no I/O. It runs unchanged on every platform, explored or real."""
