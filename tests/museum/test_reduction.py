"""How two searches of a model are compared. The tests of the exhibits do that, in ``check_plain()``."""

from __future__ import annotations

from typing import Final

import pytest

from tests.museum.compare import Seen, difference

ALL: Final = frozenset({"a", "b"})


@pytest.mark.parametrize(
    ("plain", "reduced", "says"),
    [
        (Seen(9, True, ALL, ""), Seen(3, True, frozenset("a"), ""), "the reduction leaves out ['b']"),
        (Seen(9, False, ALL, ""), Seen(3, True, frozenset("a"), ""), "the reduction leaves out ['b']"),
        (Seen(9, True, frozenset("a"), ""), Seen(3, True, ALL, ""), "only with the reduction: ['b']"),
        (Seen(9, False, frozenset("a"), ""), Seen(3, True, ALL, ""), ""),
        (Seen(9, False, frozenset(), "bang"), Seen(3, True, ALL, ""), "only the plain search finds: bang"),
        (Seen(9, True, ALL, ""), Seen(3, False, frozenset(), "bang"), "only the reduced search finds: bang"),
        (Seen(9, False, ALL, ""), Seen(3, False, frozenset(), "bang"), ""),
    ],
)
def test_what_differs_is_said(plain: Seen, reduced: Seen, says: str) -> None:
    """A plain search that was cut off has not seen everything."""
    assert difference(plain, reduced) == says
