"""There is one copy of callout_linux, by one name."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

import callout_linux

ROOT = Path(__file__).parent.parent.parent


def test_the_folder_is_no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the root of a checkout, ``import compat.callout_linux`` is refused: it would be a second copy."""
    monkeypatch.syspath_prepend(str(ROOT))
    with pytest.raises(ImportError, match="import callout_linux"):
        importlib.import_module("compat.callout_linux")
    monkeypatch.delitem(sys.modules, "compat", raising=False)

    assert callout_linux.__name__ == "callout_linux"
