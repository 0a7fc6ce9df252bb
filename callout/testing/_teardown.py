"""Whether a teardown is right, and whether it would be noticed if it were not.

A teardown pattern is written as a subclass of ``Teardown``, and explored. Then its mutants are: the same pattern with
one known mistake in it (``_mutants``). A mutant that is not found *survives*: what it changes is not tested by what was
explored, or is not needed.

The mistakes are made in the operations that the base class provides, so a pattern has to use these.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Final

from .. import (
    ArgumentTypeError,
    ArgumentValueError,
    Callout,
    Mtx,
    callout_init_mtx,
    callout_reset,
    callout_reset_on,
    mp_ncpus,
)
from ._cut_short import cut_short
from ._mutants import MUTANTS, AsWritten
from ._slab import Slab

if TYPE_CHECKING:
    from ..explore import Certificate, Violation
    from . import VirtualSMP

MAX_CALLOUTS: Final = 16
DECIDES: Final = ("hold", "drop", "drain", "stop")  # the operations that say when the object may be freed


class Teardown:
    """A teardown pattern: an object with callouts under a lock, and with a count of references. Subclass it.

    Write ``close()``, which begins the teardown, and ``completed()``, the completion of its drains, with ``locked()``,
    ``hold()``, ``drop()``, ``drain()``, ``stop()`` and ``free()``. ``self.callouts`` are its callouts, ``self.lock`` is
    its lock, ``self.vm`` the virtual machine. Callouts and lock are freed with it: to use them later is
    ``UseAfterFree``. Never to free it is a violation, too.
    """

    def __init__(self, vm: VirtualSMP, callouts: int, operations: AsWritten, slab: Slab[Teardown]) -> None:
        self.vm = vm
        self.lock = Mtx(type(self).__name__)
        self.callouts = tuple(Callout() for _ in range(callouts))
        self._references = vm.cell(0, "references")
        self._operations = operations
        self._slab = slab

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name in ("close", "completed"):
            if name in vars(cls):
                setattr(cls, name, _known(name, vars(cls)[name]))

    # -- what is written -----------------------------------------------------------------------------------------------

    def make(self) -> None:
        """Initialise and arm the callouts, before the race: nothing of it is explored. By default each has the lock,
        and the first is armed on CPU 0, the next on CPU 1, and so on.
        """
        for number, c in enumerate(self.callouts):
            callout_init_mtx(c, self.lock)
            self.arm(c, number % mp_ncpus())

    def expired(self, c: Callout) -> None:
        """Be the callback of *c*. By default it does nothing."""

    def scenario(self) -> None:
        """Be the main thread; callouts fire meanwhile. By default it calls ``close()``."""
        self.close()

    def close(self) -> None:
        """Begin the teardown."""
        raise NotImplementedError(f"{type(self).__name__} has no close(): it begins the teardown")

    def completed(self) -> None:
        """End a drain: called once for each ``drain()`` that has returned 1. ``close()`` may call it as well."""
        raise NotImplementedError(f"{type(self).__name__} has no completed(): drain() has it be called")

    # -- what it is written with ---------------------------------------------------------------------------------------

    def arm(self, c: Callout, cpu: int | None = None) -> int:
        """Arm *c*, on that *cpu* or on its own, as ``callout_reset()`` does: ``expired(c)`` comes at any moment."""
        if cpu is None:
            return callout_reset(c, 1, _fire, (self, c))
        return callout_reset_on(c, 1, _fire, (self, c), cpu)

    def locked(self) -> AbstractContextManager[None]:
        """Return a block in which the lock is held."""
        return self._operations.locked(self)

    def hold(self, references: int) -> None:
        """Set the count of references."""
        self._operations.hold(self, references)

    def drop(self) -> bool:
        """Drop one reference; return whether it was the last. The count is read and written, in two steps."""
        return self._operations.drop(self)

    def drain(self, c: Callout) -> int:
        """Drain *c*, as ``callout_drain_async()`` does: return 1 if something is outstanding, and ``completed()`` will
        be called; 0 if nothing is, and it will not.
        """
        return self._operations.drain(self, c)

    def stop(self, c: Callout) -> int:
        """Stop *c*, as ``callout_stop()`` does."""
        return self._operations.stop(self, c)

    def free(self) -> None:
        """Free the object."""
        self._slab.free(self)


def _fire(arg: tuple[Teardown, Callout]) -> None:
    """Be the callback."""
    t, c = arg
    t.expired(c)


def _known(name: str, func: Callable[[Teardown], object]) -> Callable[[Teardown], None]:
    """Have it be known, while *func* runs, that the thread is in there."""
    if inspect.iscoroutinefunction(func) or not inspect.isfunction(func):
        raise ArgumentTypeError(f"Teardown: {name}() must be a plain method, not {func!r}", call="Teardown")

    @wraps(func)
    def call(self: Teardown) -> None:
        self._operations.call(self, name, func)

    return call


# -- exploring ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class TeardownReport:
    """What became of the mutants of a pattern in which nothing was found; ``str()`` of it is a table.

    ``certificate`` is the pattern's own. ``found`` maps the name of a mutant to its ``Violation``, ``survived`` to what
    was explored in vain. ``inapplicable`` are mutants that change what the pattern never does. A search that was cut
    off is said in the table, and was a ``CutShortWarning``.
    """

    pattern: str
    certificate: Certificate
    found: Mapping[str, Violation]
    survived: Mapping[str, Certificate]
    inapplicable: tuple[str, ...]

    @property
    def survivors(self) -> list[str]:
        """The names of the mutants that were not found."""
        return list(self.survived)

    def __repr__(self) -> str:
        return (
            f"<TeardownReport of {self.pattern}: {len(self.found)} mutants found, {len(self.survived)} survived, "
            f"{len(self.inapplicable)} not applicable>"
        )

    def __str__(self) -> str:
        lines = [f"{self.pattern}: nothing found in {_extent(self.certificate)}"]
        lines += [
            f"  found     {name}: {type(violation.__cause__).__name__}, in schedule {violation.number}"
            for name, violation in self.found.items()
        ]
        lines += [f"  SURVIVES  {name}: {_extent(certificate)}" for name, certificate in self.survived.items()]
        lines += [f"  not applicable: {name}" for name in self.inapplicable]
        return "\n".join(lines)


def _extent(certificate: Certificate) -> str:
    bound = "any number of" if certificate.bound is None else f"at most {certificate.bound}"
    rest = "" if certificate.exhausted else ", and there are more"
    return f"{certificate.schedules} schedules with {bound} preemptions{rest}"


def teardown_scenario(
    pattern: type[Teardown], *, callouts: int = 2, mutant: str | None = None
) -> Callable[[VirtualSMP], None]:
    """Return the scenario of *pattern*, or of the *mutant* of it that a ``TeardownReport`` names: for ``replay()``.

    Raises:
        ArgumentTypeError, ArgumentValueError: *pattern* is no subclass of ``Teardown``; there is no such *mutant*; it
            cannot have so many *callouts*.
    """
    kinds = {kind.name: kind for kind in MUTANTS}
    if mutant is not None and mutant not in kinds:
        raise ArgumentValueError(
            f"teardown_scenario: there is no mutant {mutant!r}; there are: {', '.join(kinds)}",
            call="teardown_scenario",
        )
    return _scenario("teardown_scenario", pattern, callouts, AsWritten if mutant is None else kinds[mutant], set())


def _scenario(
    call: str, pattern: object, callouts: int, kind: type[AsWritten], done: set[str]
) -> Callable[[VirtualSMP], None]:
    if not isinstance(pattern, type) or not issubclass(pattern, Teardown) or pattern is Teardown:
        raise ArgumentTypeError(f"{call}: give a subclass of Teardown, not {pattern!r}", call=call)
    if isinstance(callouts, bool) or not isinstance(callouts, int):
        raise ArgumentTypeError(f"{call}: callouts must be an int, not {callouts!r}", call=call)
    if not 1 <= callouts <= MAX_CALLOUTS:
        raise ArgumentValueError(f"{call}: callouts must be 1 to {MAX_CALLOUTS}, not {callouts}", call=call)
    its: type[Teardown] = pattern

    def scenario(vm: VirtualSMP) -> None:
        slab: Slab[Teardown] = Slab(its.__name__)
        with vm.setup():
            t = slab.alloc(its, vm, callouts, kind(done), slab)
            references = t._references
            t.make()
        t.scenario()
        vm.settle()
        assert not slab.leaks(), f"it was never freed, and {references.peek()} references to it are left"

    scenario.__qualname__ = f"{its.__qualname__} {kind.name}".strip()
    return scenario


def explore_teardown(
    pattern: type[Teardown],
    *,
    callouts: int = 2,
    cpus: int = 2,
    bound: int | None = 3,
    schedules: int = 1_000_000,
    seconds: float | None = None,
    short_paths: bool = True,
) -> TeardownReport:
    """Explore a teardown *pattern* with so many *callouts*, then each of its mutants. Blocks until done.

    The pattern itself has to be right; the report says which of its mutants were found, and which survive. The other
    arguments are those of ``explore()``, for each of the searches. One that ends at its limit with nothing found is a
    ``CutShortWarning``.

    Raises:
        Violation: the pattern itself goes wrong.
        NondeterminismError: a search cannot be relied on.
        ArgumentTypeError, ArgumentValueError: *pattern* is no subclass of ``Teardown``, or does nothing that decides
            when to free with the operations of ``Teardown``, so that no mistake can be made in it; an argument is
            wrong.
    """
    from ..explore import Violation, explore

    def search(kind: type[AsWritten], done: set[str]) -> Certificate:
        return explore(
            _scenario("explore_teardown", pattern, callouts, kind, done),
            cpus=cpus,
            bound=bound,
            schedules=schedules,
            seconds=seconds,
            short_paths=short_paths,
            shrink=kind is AsWritten,
        )

    done: set[str] = set()
    certificate = search(AsWritten, done)
    if done.isdisjoint(DECIDES):
        raise ArgumentValueError(
            f"explore_teardown: {pattern.__name__} was explored, and no mistake can be made in it, which would show "
            "nothing: when to free is decided by none of the operations that Teardown provides. Write it with "
            "self.hold() and self.drop() for the count, self.drain() and self.stop() for the callouts, all of them in "
            "`with self.locked():`, and not with calls and fields of its own",
            call="explore_teardown",
        )
    found: dict[str, Violation] = {}
    survived: dict[str, Certificate] = {}
    for kind in MUTANTS:
        if kind.needs in done:
            try:
                survived[kind.name] = search(kind, set())
            except Violation as violation:
                found[kind.name] = violation
    inapplicable = tuple(kind.name for kind in MUTANTS if kind.needs not in done)
    for mutant, its in {"": certificate, **survived}.items():
        warning = cut_short(f"{pattern.__name__} {mutant}".strip(), its, "schedules=", seconds, at=schedules)
        if warning is not None:
            warnings.warn(warning, stacklevel=2)
    return TeardownReport(pattern.__name__, certificate, found, survived, inapplicable)
