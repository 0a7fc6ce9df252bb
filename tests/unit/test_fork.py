"""A forked child of a process with an open system; tests/conformance/test_phases.py has what is refused there."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

# The child does CHILD inside the block; the parent says what became of it, and whether its callouts still run.
SCRIPT = """
import os, sys, threading, warnings
import trio
from callout import *
warnings.simplefilter("ignore", DeprecationWarning)

async def main():
    async with open_callouts(int(sys.argv[1])) as system:
        callouts = [Callout() for _ in range(system.cpus)]
        for c in callouts:
            callout_init(c, 1)
        pid = os.fork()
        if pid == 0:
            {child}
        else:
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            for cpu, c in enumerate(callouts):
                event = Event()
                callout_reset_on(c, 1, lambda event: event.set(), event, cpu)
                assert await event.wait(30), cpu
            print("child", code, "parent goes on", flush=True)
    print("left", "child" if pid == 0 else "parent", flush=True)

trio.run(main)
"""


# Code of one CPU forks, in the way WAY, and the child does CHILD in it; the parent waits for the child in there, says
# what became of it, and whether the callouts and the calls of all CPUs still work.
ON_A_CPU = """
import os, sys, warnings
import trio
from callout import *
warnings.simplefilter("ignore", DeprecationWarning)

here = int(sys.argv[1])
over = []

def forks(arg):
    pid = os.fork()
    if pid == 0:
        {child}
    else:
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print("child", code, flush=True)
        over[0].set()

async def task():
    forks(None)
    await trio.sleep(0)
    print("went on", flush=True)

async def main():
    async with open_callouts(2, on_error=lambda error, c: print("on_error", flush=True)) as system:
        over.append(Event())
        c = Callout()
        callout_init(c, 1)
        {way}
        assert await over[0].wait(30)
        for cpu in (0, 1):
            for arm in (callout_reset_on, call):
                event = Event()
                arm(c, 1, lambda event: event.set(), event, cpu)
                assert await event.wait(30), cpu
        print("parent goes on", flush=True)
    print("left", flush=True)

def call(c, ticks, func, arg, cpu):
    cpu_call(cpu, func, arg)

trio.run(main)
"""

CALLBACK = "callout_reset_on(c, 1, forks, None, here)"
DIRECT = "callout_reset_sbt_on(c, SBT_1MS, 0, forks, None, here, C_DIRECT_EXEC)"
CALLS = "[cpu_call(here, f, None) for f in (forks, print)]"
COMPLETION = "callout_reset_on(c, 1, lambda arg: callout_drain_async(c, forks, None), None, here)"
TASK = "system.cpu(here).start_soon(task)"


def run(child: str, cpus: int, script: str = SCRIPT, way: str = "") -> tuple[str, str]:
    """Run the script; return what it printed and what it complained of."""
    done = subprocess.run(
        [sys.executable, "-c", script.format(child=child, way=way), str(cpus)],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    return done.stdout, done.stderr


@pytest.mark.parametrize("cpus", [1, 2])
@pytest.mark.parametrize(
    ("child", "code"),
    [("pass", 1), ("sys.exit(7)", 7), ("sys.exit()", 0), ("raise ValueError('mine')", 1), ("os._exit(3)", 3)],
)
def test_a_child_that_leaves_the_block(child: str, code: int, cpus: int) -> None:
    """It ends there, with the status of a sys.exit() or 1, and says why; its parent's loops and callouts go on."""
    out, err = run(child, cpus)

    assert out == f"child {code} parent goes on\nleft parent\n"
    assert ("a forked child has left the open_callouts() block" in err) == ("exit" not in child)
    assert ("ValueError: mine" in err) == ("mine" in child)


RETURNS, EXITS = ("pass", 1), ("sys.exit(7)", 7)
REST = [("raise ValueError('mine')", 1), ("os._exit(3)", 3), ("os.execv('/bin/sh', ['sh', '-c', 'exit 4'])", 4)]


@pytest.mark.parametrize("cpu", [0, 1])
@pytest.mark.parametrize(
    ("way", "child", "code"),
    [
        *((CALLBACK, *child) for child in (RETURNS, EXITS, *REST)),
        *((way, *child) for way in (DIRECT, CALLS, COMPLETION, TASK) for child in (RETURNS, EXITS)),
    ],
)
def test_a_child_that_goes_on_on_a_cpu(child: str, code: int, way: str, cpu: int) -> None:
    """Whatever forks, on whatever CPU: the child ends where that returns, is told of nothing, runs nothing of its
    parent's, and says why unless it has exited; each CPU of the parent goes on.
    """
    out, err = run(child, cpu, ON_A_CPU, way)

    ran = "None\n" if way == CALLS else "went on\n" if way == TASK else ""
    assert sorted(out.splitlines()) == sorted(f"child {code}\n{ran}parent goes on\nleft".splitlines())
    assert ("a forked child has gone on past what has forked" in err) == ("exit" not in child)
    assert ("ValueError: mine" in err) == ("mine" in child)
    assert "ForkedError" not in err


def test_a_child_may_open_a_system_of_its_own() -> None:
    """In a thread of its own the child may run trio and open a system, in which callouts run."""
    child = """
            import threading
            async def own():
                async with open_callouts(2):
                    c, event = Callout(), Event()
                    callout_init(c, 1)
                    callout_reset_on(c, 1, lambda event: event.set(), event, 1)
                    assert await event.wait(30)
                    assert callout_pending(c) == 0
            thread = threading.Thread(target=trio.run, args=(own,))
            thread.start()
            thread.join()
            os._exit(5)
"""
    out, _ = run(child, 1)

    assert out == "child 5 parent goes on\nleft parent\n"


def test_a_lock_that_a_child_is_refused_is_not_held_by_it() -> None:
    """Acquiring a mutex of the parent's system in any way is a ForkedError, whether it is free, held by this thread or
    by one that is not there; and the mutex is as it was.
    """
    child = """
            tries = free.__enter__, free.trylock, lambda: free.try_acquire(False), held.__enter__, held.trylock
            tries += other.__enter__, other.trylock, lambda: other.try_acquire(False)
            for acquire in tries:
                try:
                    acquire()
                except ForkedError:
                    continue
                os._exit(9)
            print(free._owner is None, free._raw._is_owned(), held._depth, flush=True)
            os._exit(0)
"""
    fork = "        pid = os.fork()\n"
    wait = "            code ="
    script = SCRIPT.replace(
        fork,
        f"""
        free, held, other = Mtx('free'), Mtx('held', MTX_RECURSE), Mtx('other')
        held.lock()
        taken, over = threading.Event(), threading.Event()
        def keep():
            with system.bound(), other:
                taken.set()
                over.wait()
        threading.Thread(target=keep).start()
        taken.wait()
{fork}""",
    )
    script = script.replace(wait, f"            held.unlock(); over.set()\n{wait}")
    done = subprocess.run(
        [sys.executable, "-c", script.format(child=child), "1"], capture_output=True, text=True, timeout=100, check=True
    )

    assert done.stdout == "True False 1\nchild 0 parent goes on\nleft parent\n", done.stderr
