"""One search of the engine that this process has: ``python -m tests.compiled.finds NAME``, a name of ``races.csv``.

Exit status 0 if it finds something wrong; it prints what.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

from tests.mutants.killers import Killer, Test, explorations, searched
from tests.mutants.session import with_tests


def main(name: str) -> int:
    """Run that search; return the exit status."""
    failures: list[str] = []

    def run(killers: Iterable[Killer]) -> None:
        failures.extend(killer.failure() for killer in killers if killer.name == name)

    def run_tests(tests: list[Test]) -> None:
        run(explorations(tests))

    if name.startswith("tests/"):
        with_tests([name.partition("::")[0]], run_tests)
    else:
        run(searched())
    if len(failures) != 1:
        print(f"there are {len(failures)} searches of that name: {name}")
        return 2
    print(failures[0].partition("\n")[0] or "nothing was found")
    return 0 if failures[0] else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
