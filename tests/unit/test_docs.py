"""The manual says what is so: every name, every test that it names, every link. conftest.py runs its examples."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final, Protocol

import pytest

import callout
from callout._core.rules import table
from callout.explore import Violation, explore
from callout.testing import Slab, VirtualSMP

from . import reference

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
PORTING: Final = ROOT / "docs" / "porting.md"
TUTORIAL: Final = ROOT / "docs" / "tutorial.md"

# What a machine or a place of work is called has no business in a manual: an absolute path of whatever kind, a host.
PRIVATE: Final = re.compile(r"/home/|/root/|/tmp/|(?<![\w.:/])/\w+/|file://|localhost|\b\d+\.\d+\.\d+\.\d+:\d")


def relative(page: Path) -> str:
    """Return a page's name, for the test's."""
    return page.relative_to(ROOT).as_posix()


def prose(page: Path) -> str:
    """Return the text of *page* without its code."""
    return re.sub(r"^```.*?^```$|`[^`\n]*`", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Return the names under which the headings of *page* can be linked to."""
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {anchor_of(heading) for heading in headings}


def anchor_of(heading: str) -> str:
    """Return the name under which a heading can be linked to."""
    return re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-")


def links(page: Path) -> Iterator[str]:
    """Yield the targets of the links of *page* that lead to other pages of this project."""
    for target in re.findall(r"\]\(([^)]+)\)", prose(page)):
        if not re.match(r"[a-z]+:", target):
            yield target


def named_tests(page: Path) -> list[str]:
    """Return the tests that *page* names, as ``path::name``."""
    return re.findall(r"\btests/[\w/]+\.py::\w+", page.read_text("utf-8"))


def functions_of(path: Path) -> set[str]:
    """Return the names of the functions of a file, without importing it."""
    tree = ast.parse(path.read_text("utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.pure
def test_the_reference_is_made_from_the_docstrings_of_today() -> None:
    """docs/reference.md is what tests/unit/reference.py makes of the docstrings."""
    assert reference.PATH.read_text("utf-8") == reference.render(), "run: python tests/unit/reference.py"


@pytest.mark.pure
def test_the_design_page_has_the_modules_and_phases_of_today() -> None:
    """The map and the table of phases in docs/design.md are what tests/unit/reference.py makes of the code."""
    assert reference.DESIGN.read_text("utf-8") == reference.render_design(), "run: python tests/unit/reference.py"


def test_the_map_has_every_module_of_the_package() -> None:
    """Each Python file under callout/ whose name or folder is private to the engine has a row of its own."""
    text = reference.module_map()
    rooms = ("_core", "_locks", "_api", "_worlds")
    names = [
        file.relative_to(ROOT / "callout").with_suffix("").as_posix().removesuffix("/__init__")
        for room in rooms
        for file in (ROOT / "callout" / room).rglob("*.py")
    ]

    assert [name for name in names if f"| `{name}` | " not in text and name != "_worlds"] == []
    assert "|  |" not in text, "a module without a docstring"


@pytest.mark.parametrize("name", callout.__all__)
def test_every_public_name_is_in_the_reference(name: str) -> None:
    """Each name has a heading or a row of a table of its own."""
    text = reference.PATH.read_text("utf-8")

    assert re.search(rf"^### {name}$|^\| `{name}` \|", text, flags=re.MULTILINE)


def test_the_reference_has_the_three_rules() -> None:
    """The table of the rules is the one by which the engine goes."""
    assert table() in reference.PATH.read_text("utf-8")


def test_porting_names_every_function_of_callout() -> None:
    """Each public function whose name is the kernel's is in the porting table."""
    text = PORTING.read_text("utf-8")
    names = [name for name in callout.__all__ if name.startswith(("callout_", "mtx_", "rw_", "rm_", "C_", "CALLOUT_"))]

    assert [name for name in names if not re.search(rf"\b{name}\b", text)] == []


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_each_test_that_a_page_names_is_there(page: Path) -> None:
    """What is named as ``path::test`` is a test of that file."""
    wrong = [
        name
        for name in named_tests(page)
        if not (ROOT / name.partition("::")[0]).is_file()
        or name.partition("::")[2] not in functions_of(ROOT / name.partition("::")[0])
    ]

    assert wrong == []


def test_porting_names_tests() -> None:
    """The porting page does name tests, in the form that the test before this one looks for."""
    assert len(named_tests(PORTING)) > 30


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_lead_somewhere(page: Path) -> None:
    """Each relative link leads to a file that is there, and to a heading that it has."""
    wrong = []
    for target in links(page):
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        if not there.exists() or (anchor and anchor not in anchors(there)):
            wrong.append(target)

    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_no_page_names_a_machine(page: Path) -> None:
    """No page has a path or an address of somebody's machine in it."""
    assert PRIVATE.findall(page.read_text("utf-8")) == []


def test_contributing_names_the_sessions_of_nox() -> None:
    """CONTRIBUTING.md says of each session of nox, and of no other, what it checks; the README names them, too."""
    tree = ast.parse((ROOT / "noxfile.py").read_text("utf-8"))
    sessions = {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and any("nox.session" in ast.unparse(each) for each in node.decorator_list)
    }
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    rows = re.findall(r"^\| (`.*?`) \|", text, flags=re.MULTILINE)
    readme = (ROOT / "README.md").read_text("utf-8")

    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == sessions
    assert [name for name in sessions if f"`{name}`" not in readme] == []


def test_contributing_names_what_is_explored() -> None:
    """The row of the session race has the folders that the noxfile explores, and no other."""
    tree = ast.parse((ROOT / "noxfile.py").read_text("utf-8"))
    (explored,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "EXPLORED"
    )
    (row,) = re.findall(r"^\| `race` \| (.*) \|", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), flags=re.MULTILINE)

    assert re.findall(r"`(.*?)`", row) == list(explored)


@pytest.mark.pure
def test_the_bug_of_the_testing_page_is_found_in_the_schedule_that_the_pages_print(tmp_path: Path) -> None:
    """What the page prints is what its code prints today, saved in a file, and README.md names the same schedule."""
    text = (ROOT / "docs" / "testing.md").read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (tmp_path / "session.py").write_text("\n".join(blocks[:2]), "utf-8")

    run = subprocess.run([sys.executable, "session.py"], cwd=tmp_path, capture_output=True, text=True, check=True)

    printed = run.stdout.replace(f"{tmp_path}/", "")
    printed = re.sub(r"/\S+/softclock\.py:\d+", "…", printed)
    assert f"\n```text\n{printed}```\n" in text
    assert printed.partition(" went wrong")[0] in (ROOT / "README.md").read_text("utf-8")


def test_the_tutorials_test_passes_under_pytest(tmp_path: Path) -> None:
    """The file of tests in the tutorial, saved and run as it is printed, passes."""
    found = re.search(r"^<!-- test: .*?^```python\n(.*?)^```$", TUTORIAL.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert found
    file = tmp_path / "test_the_hour.py"
    file.write_text(found[1], "utf-8")

    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "--rootdir", str(tmp_path), str(file)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.returncode == 0, run.stdout
    assert "1 passed" in run.stdout


class Session(Protocol):
    """What a user of the tutorial's session sees of it."""

    references: int
    ended: callout.Event
    free: Callable[[], None]

    def start(self) -> None:
        """Arm the callouts."""

    def close(self) -> None:
        """Be the owner's last call."""

    def drained(self) -> None:
        """Drop a reference."""


def session_of_the_tutorial() -> type[Session]:
    """Return the class ``Session`` of the tutorial, as it is printed."""
    found = re.search(r"^class Session:\n.*?(?=^async def main)", TUTORIAL.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert found
    namespace = dict(vars(callout))
    exec(f"from __future__ import annotations\n{found[0]}", namespace)  # noqa: S102 - our own
    kind: type[Session] = namespace["Session"]
    return kind


def closes(session: Session) -> None:
    """Be the owner, who closes the session at any time."""
    session.close()


def closes_late(session: Session) -> None:
    """Be the owner, who closes it when it has ended by itself."""
    session.ended.wait_sync()
    session.close()


def drops(session: Session) -> None:
    """Be other code that has a reference of its own, and drops it."""
    session.drained()


def session_used_by(*users: Callable[[Session], None]) -> Callable[[VirtualSMP], None]:
    """Return the scenario of threads that close the tutorial's session, or use it, while its callouts may fire."""
    kind = session_of_the_tutorial()

    def scenario(vm: VirtualSMP) -> None:
        slab: Slab[Session] = Slab("session")
        with vm.setup():
            session = slab.alloc(kind)
            session.free = partial(slab.free, session)  # so that a use of what is freed is seen
            session.references += users.count(drops)
            session.start()
        for user in users:
            vm.spawn(user, session)
        vm.settle()
        assert not slab.leaks()

    return scenario


@pytest.mark.parametrize(
    ("users", "bound"), [((closes,), 3), ((closes_late,), 3), ((closes, drops), 1)], ids=["closes", "late", "shared"]
)
def test_the_session_of_the_tutorial_is_right(users: tuple[Callable[[Session], None], ...], bound: int) -> None:
    """Whenever its owner closes it, the session is freed once, and nothing of it is used afterwards."""
    certificate = explore(session_used_by(*users), cpus=1, bound=bound)

    assert certificate.exhausted
    assert certificate.schedules > 200


@pytest.mark.parametrize("users", [(closes, closes), (closes_late, closes)], ids=["twice", "and-late"])
def test_the_session_of_the_tutorial_has_one_owner(users: tuple[Callable[[Session], None], ...]) -> None:
    """A close by code that has no reference of its own comes too late in some schedule, as the page says."""
    with pytest.raises(Violation, match="was used after it was freed"):
        explore(session_used_by(*users), cpus=1, bound=1)
