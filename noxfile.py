"""Everything that CI checks: ``nox`` for all of it, ``nox -s race -- -k drain`` for a part.

Sessions install the wheel, as a user would, and test that; nothing is editable. A session without a list of versions
runs on the interpreter that runs nox. With CI set, nox fails where an interpreter is missing; without, it skips.
"""

from __future__ import annotations

import os

import nox

# Long, and nothing in them depends on the version of Python: they run on the oldest only.
ONCE = (
    "tests/compat/test_smp.py",
    "tests/conformance/test_recordings.py",  # the session conformance replays them on the newest
    "tests/conformance/test_long_way.py",
    "tests/conformance/test_spelled.py",
    "tests/conformance_tool",
    "tests/demo",
    "tests/pytest_plugin",
    "tests/test_layers.py",
    "tests/unit/test_docs.py",
    "tests/unit/test_pictures.py",
    "tests/unit/test_project.py",
    "tests/unit/test_racing.py",
    "tests/unit/test_short.py",
    "tests/unit/test_site.py",
    "tests/unit/test_wheel.py",
    "tests/unit/test_words.py",
)
# Long as well, and what they find on one in the middle they find on the oldest or the newest.
ENDS = (
    "tests/conformance/test_witness.py",
    "tests/unit/test_cli.py",
    "tests/unit/test_fork.py",
    "tests/unit/test_robustness.py",
    "tests/unit/test_witness.py",
)
EXPLORED = ("tests/race", "tests/explore", "tests/museum", "tests/examples")  # the session race has them
# Of these, what CI explores with the compiled core, too: half a minute, where all of it takes five.
EXPLORED_COMPILED = [f"tests/race/test_{name}.py" for name in ("matrix", "engine", "freebsd_races", "ends_of_runs")]
EXPLORED_COMPILED += ["tests/compiled/test_certificates.py", "-k", "short and (mutex or not test_matrix)"]
PROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PROJECT)

# Sessions share nothing but the tree, which none of them changes. NOX_PARALLEL says how many may run at once, one
# unless told; an older nox does not know of it.
if hasattr(nox.options, "allow_parallel"):
    nox.options.allow_parallel = True
# Where sessions run beside one another, those of many short tests have a process each: to hand the tests out to more,
# each of which collects them all, takes a quarter of the CPU time.
WORKERS = "--numprocesses=auto" if os.environ.get("NOX_PARALLEL", "1") == "1" else "--numprocesses=0"


def install(session: nox.Session, *extras: str, compiled: bool = False) -> None:
    """Build and install the wheel, with these extras, and have the session use the pure core or the *compiled* one."""
    session.env["CALLOUT_PURE"] = "0" if compiled else "1"
    # Most of what is installed is never imported: the interpreter compiles the rest when it is.
    session.install("--no-compile", f".[{','.join(extras)}]" if extras else ".")
    # Else "python -m callout", run here by a test or a worker of pytest-xdist, would find ./callout before the wheel.
    session.env["PYTHONSAFEPATH"] = "1"


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and format."""
    session.install(*(each for each in PROJECT["project"]["optional-dependencies"]["test"] if each.startswith("ruff")))
    session.run("ruff", "check", *session.posargs)
    session.run("ruff", "format", "--check", *session.posargs)


@nox.session
def types(session: nox.Session) -> None:
    """Check types, those of tests/typing included."""
    install(session, "dev")
    session.install("nox")  # its types, for this file
    session.run("mypy", *session.posargs)


@nox.session(python=PYTHONS[-1])
def conformance(session: nox.Session) -> None:
    """Replay the recordings of the real kernels in both worlds, as a user would who has no test tools."""
    install(session)  # without greenlet: real loops must not need the extra
    for kernel in ("freebsd", "linux"):
        session.run("callout", "conformance", "--impl", kernel, "--platform", "trio")
    install(session, "explore")
    for kernel in ("freebsd", "linux"):
        session.run("callout", "conformance", "--impl", kernel, "--platform", "virtual", "--orders", "10")


@nox.session
def docs(session: nox.Session) -> None:
    """Run the examples of the manual and the README, as conftest.py says; build the site without a warning."""
    install(session, "test", "servers", "site")
    session.run("pytest", *(session.posargs or ["README.md", "docs"]))
    if not session.posargs:
        for builder in ("html", "linkcheck"):
            session.run(
                "sphinx-build", "-q", "-W", "--keep-going", "-b", builder, "docs", f"{session.create_tmp()}/{builder}"
            )


@nox.session
def race(session: nox.Session) -> None:
    """Explore the races, on one version: the schedules are the same on all, and they are many."""
    install(session, "test")
    # They share nothing and take only CPU time, so all cores may help. Some take a thousand times as long as others.
    session.run("pytest", "--numprocesses=auto", "--dist=worksteal", *EXPLORED, *session.posargs)


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run all other tests, on every version; on the newest in Python's development mode (-X dev)."""
    install(session, "test", "servers")
    if session.python == PYTHONS[-1]:
        session.env["PYTHONDEVMODE"] = "1"  # the option would not reach the workers of pytest-xdist
    elsewhere = [*EXPLORED, "tests/bench", "tests/mutants"]
    if session.python != PYTHONS[0]:
        elsewhere += ONCE
        if session.python != PYTHONS[-1]:
            elsewhere += ENDS
    ignored = [f"--ignore={path}" for path in elsewhere]
    session.run("pytest", WORKERS, *ignored, *session.posargs)


@nox.session(python=PYTHONS)
def compiled(session: nox.Session) -> None:
    """Run the tests with the compiled core, and the recordings on the oldest and the newest; what looks into the
    engine's code, or at pages, is left out.
    """
    if session.python != PYTHONS[-1]:
        session.env["CFLAGS"] = "-O1"  # compiled in half of the time; the newest has what users get
    install(session, "test", compiled=True)
    session.run("python", "-c", "import callout; assert callout.core == 'compiled', 'is there a C compiler?'")
    elsewhere = [*EXPLORED, "tests/bench", "tests/mutants", "tests/pytest_plugin", "tests/test_layers.py"]
    elsewhere += [f"tests/unit/test_{name}.py" for name in ("docs", "pictures", "project", "racing", "site", "words")]
    if session.python != PYTHONS[-1]:
        elsewhere += [*ONCE, *ENDS]
    ignored = [f"--ignore={path}" for path in elsewhere]
    session.run("pytest", WORKERS, *ignored, *session.posargs)
    if session.python != PYTHONS[0]:
        return  # on the newest tests/conformance/test_recordings.py was among them
    for kernel in ("freebsd", "linux"):
        for platform in ("trio", "virtual"):
            session.run("callout", "conformance", "--impl", kernel, "--platform", platform)


@nox.session(python=PYTHONS[-1])
def explored(session: nox.Session) -> None:
    """Explore the compiled core, made so that it can be: a part, but with arguments what they say; and its mutants."""
    session.env["CALLOUT_EXPLORABLE"] = "1"
    session.env["CFLAGS"] = "-O1"  # as above, and it is explored as quickly
    install(session, "test", compiled=True)
    session.install(*PROJECT["build-system"]["requires"])  # the mutants are compiled, too
    session.run("pytest", "--numprocesses=auto", "--dist=worksteal", *(session.posargs or EXPLORED_COMPILED))
    where = session.run("python", "-c", "import sysconfig; print(sysconfig.get_path('platlib'))", silent=True)
    session.env.pop("PYTHONSAFEPATH")  # the mutants are those of this tree
    session.env["CALLOUT_PURE"] = "1"
    session.run("python", "-m", "tests.compiled.mutants", "--sample", "2", "--installed", str(where).strip())


@nox.session(python=PYTHONS[-1])
def soak(session: nox.Session) -> None:
    """Make calls of every kind for 20 seconds, with the compiled core and every fault: no arming may be lost."""
    install(session, compiled=True)
    session.run("callout", "soak", *(session.posargs or ["--seconds", "20"]))


@nox.session(python=PYTHONS[-1])
def bench(session: nox.Session) -> None:
    """Check that every peer of ``callout bench`` runs every workload; no figure is judged."""
    install(session, "test", "bench")
    session.run("pytest", "--numprocesses=auto", "tests/bench", *session.posargs)


@nox.session
def mutants(session: nox.Session) -> None:
    """Check that the list of mutants is complete, and kill a sample; ``python -m tests.mutants --run`` runs all."""
    install(session, "test")
    session.env.pop("PYTHONSAFEPATH")  # the mutants are those of this tree
    session.run("pytest", "tests/mutants", *session.posargs)


@nox.session
def lowest(session: nox.Session) -> None:
    """Run what touches trio and structlog most, with the lowest versions of them that pyproject.toml admits."""
    install(session, "test")
    session.install("trio==0.29.0", "structlog==22.2.0")
    touching = ["test_current_system", "test_interrupts", "test_lifetime", "test_open_failures", "test_other_loops"]
    touching += ["test_guest", "test_platforms", "test_reporting", "test_robustness", "test_start_soon"]
    touching += ["test_guest_nursery", "test_nursery"]
    files = [f"tests/unit/{name}.py" for name in touching]
    session.run(
        "pytest",
        WORKERS,
        *files,
        "tests/threads",
        "tests/conformance/test_leaving.py",
        "tests/conformance/test_open_callouts.py",
        *session.posargs,
    )
