"""The list of mutants is complete, and the command kills them. All of them: ``python -m tests.mutants``."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutants import operators, plant
from tests.mutants.operators import DATA_ONLY, Mutation, all_mutations, name_called
from tests.mutants.table import equivalent


@pytest.fixture(scope="module")
def mutations() -> list[Mutation]:
    """Every mutant."""
    return all_mutations()


def nodes(module: str) -> list[ast.AST]:
    """Return what is in the functions of a module, but for claims and the words of errors."""
    out: list[ast.AST] = []

    def walk(node: ast.AST) -> None:
        if not isinstance(node, ast.Assert | ast.Raise):
            out.append(node)
            for child in ast.iter_child_nodes(node):
                walk(child)

    for _, _, function in operators.functions(operators.parse(module)):
        for statement in function.body:
            walk(statement)
    return out


def test_names_are_unique_and_the_same_each_time(mutations: list[Mutation]) -> None:
    """Two look-ups give the same names in the same order, none of them twice."""
    names = [mutation.name for mutation in mutations]

    assert names == [mutation.name for mutation in all_mutations()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("module", operators.modules())
def test_every_module_has_mutants_or_holds_data(module: str, mutations: list[Mutation]) -> None:
    """A module of the core or the locks without a mutant is one of those that hold data only."""
    assert (module in DATA_ONLY) == (module not in {mutation.module for mutation in mutations})


@pytest.mark.parametrize("module", operators.modules())
def test_every_check_is_forced_both_ways(module: str, mutations: list[Mutation]) -> None:
    """For every condition of an if, a while or a conditional expression there are both mutants, however often it is."""
    conditions = [
        operators.short(node.test)
        for node in nodes(module)
        if isinstance(node, ast.If | ast.While | ast.IfExp) and not isinstance(node.test, ast.Constant)
    ]
    for outcome in ("true", "false"):
        forced = [
            mutation.source.partition(" #")[0]
            for mutation in mutations
            if mutation.module == module and mutation.operator == outcome
        ]

        assert [text for text in set(conditions) if forced.count(text) < conditions.count(text)] == []


@pytest.mark.parametrize("module", operators.modules())
def test_every_wake_up_and_every_release_is_left_out(module: str, mutations: list[Mutation]) -> None:
    """For every call whose value is not used, a wake-up or a release for example, there is a mutant without it."""
    calls = [
        operators.short(node)
        for node in nodes(module)
        if isinstance(node, ast.Expr) and name_called(node.value) in operators.SYNCHRONIZE
    ]
    deleted = [
        mutation.source.partition(" #")[0]
        for mutation in mutations
        if mutation.module == module and mutation.operator == "deleted"
    ]

    assert [text for text in set(calls) if deleted.count(text) < calls.count(text)] == []


def test_every_mutant_compiles_and_differs(mutations: list[Mutation]) -> None:
    """Each is a program, and another one than the engine; one in seven is looked at."""
    engine = {module: ast.dump(operators.parse(module)) for module in operators.modules()}
    for mutation in mutations[::7]:
        tree = mutation.tree()
        plant.compiled(mutation.module, tree)

        assert ast.dump(tree) != engine[mutation.module], mutation.name


def test_an_equivalent_mutant_exists_and_has_a_reason(mutations: list[Mutation]) -> None:
    """Whatever is called equivalent is a mutant that there is, and the file says why nothing can kill it."""
    names = {mutation.name for mutation in mutations}

    assert [name for name in equivalent() if name not in names] == []
    assert [name for name, reason in equivalent().items() if len(reason.split()) < 4] == []


def command(*args: str) -> subprocess.CompletedProcess[str]:
    """Run the command on the root of the tree."""
    root = Path(__file__).parents[2]
    return subprocess.run(
        [sys.executable, "-m", "tests.mutants", *args],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )


def test_the_command_kills_a_sample(tmp_path: Path) -> None:
    """No mutant of the step that every stop takes passes the recordings and the tests of what it does and tells."""
    told = ("tests/unit/test_stats.py", "tests/unit/test_tracing.py")
    killers = ("recordings", "tests/unit/test_short.py", *told)
    run = command("--run", "--only", "stop:stop_locked", "--killers", *killers, "--out", str(tmp_path))
    table = command("--table", "--only", "stop:stop_locked", "--out", str(tmp_path))

    assert run.returncode == 0, run.stdout + run.stderr
    assert "survives" not in run.stdout
    assert "| _core.stop:stop_locked \\| run is not None \\| true | " in table.stdout
    assert "**" not in table.stdout


def test_the_command_says_what_survives(tmp_path: Path) -> None:
    """With killers that know nothing of it a mutant survives, and the command fails."""
    name = "_core.stop:deactivate | the lock | unlocked"  # one thread at a time needs no lock
    run = command("--run", "--only", name, "--killers", "recordings", "--out", str(tmp_path))

    assert run.returncode == 1
    assert f"survives: {name}" in run.stdout
