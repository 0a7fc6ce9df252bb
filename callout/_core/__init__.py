"""The engine: no trio, no threads, no logging, no I/O. It runs unchanged on every platform, explored or real."""

from . import build as build  # first of all: it says whether what follows is the compiled core
