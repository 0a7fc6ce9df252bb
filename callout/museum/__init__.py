"""The museum: the races of kernel timers, each as a small executable model with its mistakes and its remedies.

``EXHIBITS`` has them all, by number. The scenario of each variant is one for ``callout.explore.explore()``.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from . import (
    _freebsd_direct,
    _freebsd_engine,
    _freebsd_giant,
    _freebsd_lookup,
    _freebsd_migration,
    _freebsd_shared,
    _freebsd_use,
    _linux_2_3,
    _linux_2_6,
    _smp_call,
    _unreliable_guide,
)
from ._exhibit import Exhibit, Variant

if TYPE_CHECKING:
    from collections.abc import Mapping


def _key(exhibit: Exhibit) -> tuple[int, ...]:
    return tuple(map(int, exhibit.number.removeprefix("R").split(".")))


EXHIBITS: Final[Mapping[str, Exhibit]] = MappingProxyType(
    {
        exhibit.number: exhibit
        for exhibit in sorted(
            (
                *_linux_2_6.EXHIBITS,
                *_linux_2_3.EXHIBITS,
                *_smp_call.EXHIBITS,
                *_unreliable_guide.EXHIBITS,
                *_freebsd_use.EXHIBITS,
                *_freebsd_engine.EXHIBITS,
                *_freebsd_giant.EXHIBITS,
                *_freebsd_shared.EXHIBITS,
                *_freebsd_direct.EXHIBITS,
                *_freebsd_migration.EXHIBITS,
                *_freebsd_lookup.EXHIBITS,
            ),
            key=_key,
        )
    }
)

__all__ = ["EXHIBITS", "Exhibit", "Variant"]
