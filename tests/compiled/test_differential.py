"""The same random program on both cores: no call may return anything else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

import callout

PROGRAM: Final = Path(__file__).with_name("program.py")
CALLS: Final = 20_000


def run(core: str, seed: int) -> str:
    """Return what the program prints with that core."""
    command = [sys.executable, str(PROGRAM), str(CALLS), str(seed)]
    env = os.environ | {"CALLOUT_PURE": "1" if core == "pure" else "0"}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(callout.core == "pure", reason="compares the compiled core with the pure one")
@pytest.mark.parametrize("seed", range(5))
def test_both_cores_return_the_same(seed: int) -> None:
    """Every result, state and time is the same, whichever core has run the program."""
    pure, compiled = run("pure", seed).split(), run("compiled", seed).split()

    assert [pure[0], compiled[0]] == ["pure", "compiled"]
    assert pure[1] == compiled[1]
