"""``smp_call_function_many()`` of Linux 2.6.33: a block that is reused while others still look at it.

A CPU that wants others to call a function fills in a block of its own (``func``, ``cpumask``, ``refs``), links it into
one global queue and interrupts them. Each handler walks the queue without a lock. The one that drops the last
reference unlinks the block, and its owner may fill it in again at once: a walker may still stand on it.

The model has the owner and two targets. The first call, to CPU 1, is under way. The second one goes to CPU 2, which
meanwhile walks the queue for a reason of its own. Reading in another order, or writing in another order, is also what a
missing memory barrier would do.

Invariants: a call has as many references as targets that have not made it, and never less than none; each target makes
each call once; an entry is unlinked only when it is linked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, Literal

from ..testing import VirtualSMP
from ._exhibit import Exhibit, Variant

Scenario = Callable[[VirtualSMP], None]
Reader = Literal["", "refs mask", "refs mask refs", "mask refs"]
Writer = Literal["mask refs list", "refs mask list", "mask list refs"]
Calls = tuple[tuple[int, int], ...]  # which were made: by which CPU, which call

NONE: Final[Calls] = ()


def two_calls(reader: Reader, writer: Writer, *, whole: bool = False, both: bool = False) -> Scenario:
    """Return the scenario of two calls by one block.

    *reader*: what a handler looks at before it tests its bit and clears it. *writer*: in which order the sender
    publishes the block. *whole*: whether the links of the queue are looked at, too. *both*: the second call goes to
    CPU 1 as well.
    """
    targets = frozenset({1, 2} if both else {2})

    def scenario(vm: VirtualSMP) -> None:
        with vm.setup():
            queue = vm.lock("call_function.lock")
            block = vm.struct("block", in_use=True, func=1, linked=True)
            mask = vm.cell(frozenset({1}), "cpumask")
            refs = vm.cell(1, "refs")
            made = vm.cell(NONE, "calls made")
            interrupted = vm.cell(False, "interrupt of CPU 2")

        def send() -> None:
            vm.wait_until(lambda: not block.in_use, "the block to be free")
            block.in_use = True
            block.func = 2
            for step in writer.split():
                if step == "mask":
                    mask.value = targets
                elif step == "refs":
                    refs.value = len(targets)
                else:
                    with queue:
                        block.linked = True
            interrupted.value = True

        def passes(cpu: int) -> Iterator[object]:
            for look in reader.split():
                yield cpu in mask.value if look == "mask" else refs.value

        def walk(cpu: int) -> None:
            if not block.linked:
                return
            if not all(passes(cpu)):
                return
            if cpu not in mask.update(lambda cpus: cpus - {cpu}):
                return
            func = block.func
            made.update(lambda calls: (*calls, (cpu, func)))
            left = refs.update(lambda count: count - 1) - 1
            assert left >= 0, f"CPU {cpu} drops a reference that the call does not have: refs is {left}"
            if left == 0:
                with queue:
                    assert not whole or block.linked, f"CPU {cpu} unlinks the block, which is not linked"
                    block.linked = False
                block.in_use = False

        def walks(cpu: int) -> None:
            walk(cpu)
            if cpu in targets:
                vm.wait_until(lambda: interrupted.value, "the interrupt of the second call")
                walk(cpu)

        vm.spawn(walks, 1, name="CPU 1")
        vm.spawn(send, name="owner")
        vm.spawn(walks, 2, name="CPU 2")
        vm.settle()

        wanted = [(1, 1), *((cpu, 2) for cpu in sorted(targets))]
        assert sorted(made.value) == wanted, f"the calls made, as (CPU, call), are {sorted(made.value)}"
        assert refs.value == 0, f"refs is {refs.value} after the last call"

    return scenario


EXHIBITS: Final[tuple[Exhibit, ...]] = (
    Exhibit(
        number="R2.1",
        title="smp_call_function_many(): a descriptor is recycled under a walker",
        story=(
            "In March 2010 Anton Blanchard saw machines with many CPUs fail in smp_call_function_many(). A change had "
            "removed the lock of the data block, because the queue is walked without locks anyway. But a block is "
            "reused as soon as its last reference is dropped, with no grace period. A CPU that still stands on the old "
            "block finds its bit in the new cpumask before the new count of references is there. It makes the call too "
            "early and takes the count below zero. His first repair, to look at refs before the cpumask, is not "
            "enough: the refs that it sees may be those of the call before. Paul McKenney proposed to look at refs "
            "once more after the cpumask. To look at the cpumask first and at refs second is enough, because a bit "
            "that is set can only be of the new call. A year later Milton Miller closed a second window: the last "
            "target could unlink the block before its owner had linked it. Since then the sender writes refs last, "
            "when the block is in the queue."
        ),
        sources=(
            "Anton Blanchard, linux-kernel, 23 March 2010, on smp_call_function_many()",
            "Linux commits 54fdade1c333 and c0f68c2fab48 (Xiao Guangrong), which removed the lock",
            "Linux commit e6cd1e07a185, call_function_many: fix list delete vs add race (Milton Miller)",
            "Linux, kernel/smp.c, generic_smp_call_function_interrupt()",
        ),
        variants=(
            Variant(
                "no-check",
                "2.6.33: the handler only tests its bit and clears it",
                two_calls("", "mask refs list"),
                breaks="refs is -1",
                preemptions=2,
            ),
            Variant(
                "refs-mask",
                "Blanchard's first repair: refs, then cpumask",
                two_calls("refs mask", "mask refs list"),
                breaks="refs is -1",
                preemptions=2,
            ),
            Variant(
                "refs-mask-refs",
                "refs, cpumask, and refs again (McKenney)",
                two_calls("refs mask refs", "mask refs list"),
            ),
            Variant(
                "mask-refs",
                "cpumask, then refs, as it was merged",
                two_calls("mask refs", "mask refs list"),
            ),
            Variant(
                "no-check-mask-last",
                "no look first, but the sender writes the cpumask after refs",
                two_calls("", "refs mask list"),
            ),
            Variant(
                "refs-mask-mask-last",
                "refs, then cpumask, and the sender writes the cpumask after refs",
                two_calls("refs mask", "refs mask list"),
            ),
            Variant(
                "refs-mask-refs-mask-last",
                "refs, cpumask, refs, and the sender writes the cpumask after refs",
                two_calls("refs mask refs", "refs mask list"),
            ),
            Variant(
                "mask-refs-mask-last",
                "cpumask, then refs, and the sender writes the cpumask after refs",
                two_calls("mask refs", "refs mask list"),
            ),
            Variant(
                "refs-before-link",
                "the same as mask-refs, with the links of the queue looked at: the block is unlinked too early",
                two_calls("mask refs", "mask refs list", whole=True),
                breaks="unlinks the block, which is not linked",
                preemptions=2,
            ),
            Variant(
                "refs-last",
                "2.6.39: the sender writes refs when the block is linked",
                two_calls("mask refs", "mask list refs", whole=True),
            ),
            Variant(
                "refs-last-both",
                "the same, and the second call goes to CPU 1, too",
                two_calls("mask refs", "mask list refs", whole=True, both=True),
            ),
        ),
    ),
)
