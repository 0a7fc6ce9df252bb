"""explore_teardown(): a teardown pattern, and its mutants."""

from __future__ import annotations

import pytest

from callout import (
    ArgumentTypeError,
    ArgumentValueError,
    Callout,
    UseAfterFree,
    callout_drain_async,
    callout_init,
    callout_init_mtx,
)
from callout.explore import Violation, explore, replay
from callout.testing import CutShortWarning, Teardown, VirtualSMP, explore_teardown, teardown_scenario
from callout.testing._mutants import MUTANTS

ALL = [kind.name for kind in MUTANTS]


class Counted(Teardown):
    """A pattern with a reference count."""

    def completed(self) -> None:
        """Drop one reference; the last one frees."""
        with self.locked():
            last = self.drop()
        if last:
            self.free()


class Pcb(Counted):
    """The teardown of the mail that announced callout_drain_async(): a reference for each callout, and one's own."""

    def close(self) -> None:
        """Drain all."""
        with self.locked():
            self.hold(len(self.callouts) + 1)
            for c in self.callouts:
                if self.drain(c) == 0:
                    self.drop()
        self.completed()


class Late(Pcb):
    """The same, closed only when its callouts have fired: nothing races."""

    def scenario(self) -> None:
        """Wait, then close."""
        self.vm.settle()
        self.close()


class Single(Teardown):
    """One callout, and no count: the completion frees when ``close()`` has released the lock."""

    def close(self) -> None:
        """Drain it."""
        (c,) = self.callouts
        with self.locked():
            outstanding = self.drain(c)
        if not outstanding:
            self.free()

    def completed(self) -> None:
        """Wait for close(), and free."""
        with self.locked():
            pass
        self.free()


class Hasty(Single):
    """The same, with a completion that frees at once."""

    def completed(self) -> None:
        """Free it."""
        self.free()


class Stops(Teardown):
    """Stops its callout and frees, which is wrong."""

    def close(self) -> None:
        """Stop it."""
        with self.locked():
            for c in self.callouts:
                self.stop(c)
        self.free()


class Flagged(Counted):
    """Stops its callout, which has no lock; the callback drops a reference if it could not be stopped."""

    def make(self) -> None:
        """Arm callouts that have no lock."""
        for c in self.callouts:
            callout_init(c, 1)
            self.arm(c)

    def expired(self, c: Callout) -> None:
        """Drop the callout's reference."""
        self.completed()

    def close(self) -> None:
        """Stop it; take what it would have dropped."""
        (c,) = self.callouts
        with self.locked():
            if self.stop(c) == 1:
                self.drop()
        self.completed()


@pytest.mark.parametrize("callouts", [1, 2])
def test_the_reference_counted_teardown_has_no_survivors(callouts: int) -> None:
    """Every mutant of the teardown of the mail is found with two preemptions, by one CPU's softclock."""
    report = explore_teardown(Pcb, callouts=callouts, cpus=1, bound=2)

    assert report.survivors == []
    assert report.certificate.exhausted
    assert sorted([*report.found, *report.inapplicable]) == sorted(ALL)
    assert report.inapplicable == ("the stop's result inverted",)


def test_with_two_cpus_too() -> None:
    """The same with a callout on each of two CPUs, where completions come together."""
    report = explore_teardown(Pcb, callouts=2, cpus=2, bound=2)

    assert report.survivors == []
    assert report.certificate.exhausted


def test_a_scenario_that_is_too_weak_has_survivors_and_they_are_named() -> None:
    """Where nothing races, a stop is as good as a drain, and the completion needs no lock."""
    report = explore_teardown(Late, callouts=2, cpus=1, bound=3)

    assert report.survivors == ["stop instead of drain", "completed() unlocks before it drops its reference"]
    assert "SURVIVES  stop instead of drain: 1 schedules with at most 3 preemptions" in str(report)
    assert repr(report) == "<TeardownReport of Late: 8 mutants found, 2 survived, 1 not applicable>"


def test_a_bound_that_is_too_low_has_survivors_as_well() -> None:
    """Without a preemption the unlocked count is never seen halfway."""
    report = explore_teardown(Pcb, callouts=1, cpus=1, bound=0)

    assert "completed() unlocks before it drops its reference" in report.survivors


def test_a_pattern_without_a_count_has_fewer_mutants() -> None:
    """What a pattern never does cannot be done wrong: that is neither found nor a survivor."""
    report = explore_teardown(Single, callouts=1, cpus=1, bound=3)

    assert report.survivors == []
    assert set(report.found) == {
        "the drain's result inverted",
        "stop instead of drain",
        "unlocked before the first drain",
        "completed() unlocks when it has freed",
    }
    assert "not applicable: one reference less" in str(report)


def test_a_pattern_that_is_wrong_in_three_preemptions_is_found_with_the_default_bound() -> None:
    """Where nothing keeps the object for close(), the completion frees the lock that close() holds."""
    assert explore_teardown(Hasty, callouts=1, cpus=1, bound=2).certificate.exhausted
    with pytest.raises(Violation) as caught:
        explore_teardown(Hasty, callouts=1, cpus=1)

    assert "its lock 'Hasty' was released" in str(caught.value.__cause__)


def test_a_pattern_that_is_wrong_is_a_violation() -> None:
    """The pattern as it is written has to be right; its schedule can be replayed."""
    with pytest.raises(Violation) as caught:
        explore_teardown(Stops, callouts=1, cpus=1, bound=2)

    assert isinstance(caught.value.__cause__, UseAfterFree)
    with pytest.raises(UseAfterFree):
        replay(teardown_scenario(Stops, callouts=1), caught.value.schedule)


def test_a_mutant_that_was_found_can_be_replayed() -> None:
    """The schedule of a mutant is one of its own scenario, and of no other."""
    report = explore_teardown(Pcb, callouts=2, cpus=1, bound=2)
    name = "stop instead of drain"
    schedule = report.found[name].schedule

    with pytest.raises(UseAfterFree):
        replay(teardown_scenario(Pcb, mutant=name), schedule)
    with pytest.raises(ArgumentValueError, match="one of the scenario"):
        replay(teardown_scenario(Pcb), schedule)


def test_a_pattern_that_stops_has_its_answer_inverted() -> None:
    """A pattern with stop() is explored with the result of the stop inverted."""

    class Counted(Flagged):
        def make(self) -> None:
            self.hold(2)
            super().make()

    report = explore_teardown(Counted, callouts=1, cpus=1, bound=2)

    assert "the stop's result inverted" in report.found
    assert {"one reference less", "one reference more"} <= report.found.keys()
    assert "the count is set after the first drain" in report.inapplicable
    assert report.survivors == []


def test_dropping_what_is_not_there_is_a_violation() -> None:
    """A reference can be dropped only while one is held."""
    with pytest.raises(Violation) as caught:
        explore_teardown(Flagged, callouts=1, cpus=1, bound=1)

    assert "drops a reference, and none is held" in str(caught.value.__cause__)


def test_a_scenario_can_be_an_explored_test() -> None:
    """teardown_scenario() returns a scenario like any other."""
    scenario = teardown_scenario(Pcb, callouts=1)

    def test_it(vm: VirtualSMP) -> None:
        scenario(vm)

    assert explore(test_it, cpus=1, bound=1).exhausted


class Rearms(Pcb):
    """The same; each callout is armed once more by its first run, on the other CPU."""

    def make(self) -> None:
        """Arm them all on CPU 0."""
        self.again = set(self.callouts)
        for c in self.callouts:
            callout_init_mtx(c, self.lock)
            self.arm(c)

    def expired(self, c: Callout) -> None:
        """Arm it again."""
        if c in self.again:
            self.again.discard(c)
            self.arm(c, 1)


def test_callbacks_may_arm_their_callouts_again() -> None:
    """A pattern whose callbacks re-arm, and move to another CPU, has no survivors either."""
    report = explore_teardown(Rearms, callouts=1, cpus=2, bound=2)

    assert report.survivors == []


def test_limits_are_kept_and_said() -> None:
    """A search that ended at its limit is no certificate: a warning, and the report, say that there are more."""
    with pytest.warns(CutShortWarning) as caught:
        report = explore_teardown(Pcb, callouts=1, cpus=1, bound=2, schedules=1)

    assert [str(each.message).partition(";")[0] for each in caught] == [
        f"{name}: the search was cut off by its limit, 1 schedules (schedules=)"
        for name in ("Pcb", *(f"Pcb {survivor}" for survivor in report.survivors))
    ]
    assert {each.filename for each in caught} == {__file__}
    assert not report.certificate.exhausted
    assert "nothing found in 1 schedules with at most 2 preemptions, and there are more" in str(report)


class Nothing(Teardown):
    """Nothing is written."""


class Settles(Teardown):
    """Waits until all has fired."""

    def close(self) -> None:
        """Wait, and free."""
        self.vm.settle()
        self.free()


class OfItsOwn(Teardown):
    """The teardown of the mail, written with the calls themselves and a count of its own."""

    references = 0

    def close(self) -> None:
        """Drain all."""
        with self.lock:
            self.references = len(self.callouts) + 1
            for c in self.callouts:
                if callout_drain_async(c, OfItsOwn.completed, self) == 0:
                    self.references -= 1
        self.completed()

    def completed(self) -> None:
        """Drop one reference; the last one frees."""
        with self.locked():
            self.references -= 1
            last = self.references == 0
        if last:
            self.free()


@pytest.mark.parametrize("pattern", [Settles, OfItsOwn])
def test_a_pattern_in_which_no_mistake_can_be_made_is_refused(pattern: type[Teardown]) -> None:
    """What goes past the operations has no mutants to speak of, and "no survivors" would be said of nothing."""
    with pytest.raises(ArgumentValueError, match=rf"{pattern.__name__} was explored, and no mistake .* self\.hold\(\)"):
        explore_teardown(pattern, callouts=2, cpus=1)


def test_wrong_use_is_a_clear_error() -> None:
    """What is no pattern, a number of callouts that cannot be, an unknown mutant, and what is not written."""
    with pytest.raises(ArgumentTypeError, match="give a subclass of Teardown, not 3"):
        explore_teardown(3)  # type: ignore[arg-type]  # that is the test
    with pytest.raises(ArgumentTypeError, match="give a subclass of Teardown"):
        explore_teardown(Teardown)
    with pytest.raises(ArgumentTypeError, match="callouts must be an int, not '1'"):
        explore_teardown(Pcb, callouts="1")  # type: ignore[arg-type]  # that is the test
    with pytest.raises(ArgumentValueError, match="callouts must be 1 to 16, not 0"):
        explore_teardown(Pcb, callouts=0)
    with pytest.raises(ArgumentValueError, match="no mutant 'all'; there are: one reference less, "):
        teardown_scenario(Pcb, mutant="all")
    with pytest.raises(ArgumentValueError, match="bound"):
        explore_teardown(Pcb, bound=-1)
    with pytest.raises(Violation) as caught:
        explore_teardown(Nothing, cpus=1)
    assert "Nothing has no close()" in str(caught.value.__cause__)
    with pytest.raises(ArgumentTypeError, match=r"close\(\) must be a plain method"):

        class Async(Teardown):
            async def close(self) -> None:  # type: ignore[override]  # that is the test
                """Be none."""


def test_the_callback_of_a_freed_object_is_found() -> None:
    """A callback that runs after the free is a use after free, though it does nothing itself."""

    class Frees(Teardown):
        def close(self) -> None:
            self.free()

    with pytest.raises(Violation) as caught:
        explore_teardown(Frees, callouts=1, cpus=1, bound=0)
    assert isinstance(caught.value.__cause__, UseAfterFree)


def test_what_was_never_freed_is_found() -> None:
    """At the end it must have been freed."""

    class Forgets(Pcb):
        def free(self) -> None:
            """Do nothing."""

    with pytest.raises(Violation) as caught:
        explore_teardown(Forgets, callouts=1, cpus=1, bound=0)
    assert str(caught.value.__cause__) == "it was never freed, and 0 references to it are left"
