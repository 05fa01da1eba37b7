"""The reconciler: what it does, in which order, and what it remembers."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

import pytest

from ovsfw.compiler import Binding, Bindings, Program, compile_policy
from ovsfw.compiler import pipeline as p
from ovsfw.errors import SwitchError
from ovsfw.openflow import match as m
from ovsfw.openflow.diff import Diff
from ovsfw.openflow.flow import Flow, FlowSet, flow
from ovsfw.openflow.tracked import Tracked
from ovsfw.policy.model import Network, Policy, Port
from ovsfw.policy.paged import Paged
from ovsfw.reconciler import Change, Reconciler, Settings, change_between, read
from tests.fakes import FakeSwitch
from tests.strategies import mac

HERE = Bindings((Binding("vm1", 1), Binding("vm2", 2)))


def policy(*, secure: bool = True) -> Policy:
    return Policy({"vm1": Port("vm1", mac(1)), "vm2": Port("vm2", mac(2), port_security=secure)})


def step(reconciler: Reconciler, wanted: Policy | None, bindings: Bindings | None = HERE) -> Change | None:
    return asyncio.run(reconciler.step(wanted, bindings))


def drift() -> Flow:
    return flow(p.DELIVER.number, 999, (m.IN_PORT(9),), (), 0)


def test_ports_are_closed_before_the_flows_change_and_opened_after() -> None:
    switch = FakeSwitch()
    reconciler = Reconciler(switch)
    assert str(step(reconciler, policy())).endswith("2 ports taken out of flooding, ports of fragments shown")
    assert switch.log == ["close [1, 2]", "fragments True", "bundle", "forget"]
    switch.log.clear()
    assert str(step(reconciler, policy(secure=False))).endswith("flows, 1 ports put back into flooding")
    assert switch.log == ["bundle", "forget", "open [2]"]
    assert [ofport for ofport, on in switch.flagged.items() if on] == [1]


def test_a_second_step_looks_only_at_settings_and_sends_nothing() -> None:
    switch = FakeSwitch()
    reconciler = Reconciler(switch)
    step(reconciler, policy())
    switch.log.clear()
    change = step(reconciler, policy())
    assert change is not None
    assert not change
    assert (switch.log, switch.dumps) == ([], 1)


def test_a_port_that_was_plugged_again_is_closed_again() -> None:
    switch = FakeSwitch()
    reconciler = Reconciler(switch)
    step(reconciler, policy())
    switch.log.clear()
    switch.flagged[2] = False
    switch.fragments = False
    step(reconciler, policy())
    assert switch.log == ["close [2]", "fragments True"]


def test_limits_are_looked_at_where_there_are_some() -> None:
    """Somebody changes those of two zones; where there should be none, it is seen in doubt."""
    limited = Policy(policy().ports, networks={None: Network(connection_limit=100)})
    here = Bindings((Binding("vm1", 1, 7), Binding("vm2", 2, 7)))
    for wanted, seen in ((limited, "limits {7: 100, 8: None}"), (policy(), "")):
        switch = FakeSwitch()
        reconciler = Reconciler(switch)
        step(reconciler, wanted, here)
        switch.log.clear()
        switch.limits = {7: 5, 8: 5}
        step(reconciler, wanted, here)
        assert switch.log == [seen] * bool(seen)
        reconciler.doubt()
        step(reconciler, wanted, here)
        assert switch.limits == ({7: 100} if seen else {})


def test_drift_is_seen_only_in_doubt() -> None:
    switch = FakeSwitch()
    reconciler = Reconciler(switch)
    step(reconciler, policy())
    switch.flows.update([drift()])
    assert not step(reconciler, policy())
    reconciler.doubt()
    change = step(reconciler, policy())
    assert change is not None
    assert change.flows == Diff(deletes=(drift(),))
    assert switch.flows == compile_policy(policy(), HERE).flows.flat


class Stubborn(FakeSwitch):
    """Refuses to change flags."""

    async def set_no_flood(self, ofports: Collection[int], *, on: bool) -> None:
        raise SwitchError(f"{ofports} {on}")


def test_flows_stay_as_they_are_when_a_port_cannot_be_closed() -> None:
    switch = Stubborn()
    reconciler = Reconciler(switch)
    for _ in range(2):
        with pytest.raises(SwitchError):
            step(reconciler, policy())
    assert (switch.flows, switch.bundles, switch.dumps) == ({}, 0, 2)


class Torn(FakeSwitch):
    """A port does not take its flag, which ends the connection that something else is asked over."""

    def __init__(self, *, slow: bool) -> None:
        super().__init__()
        self.slow = slow

    async def set_no_flood(self, ofports: Collection[int], *, on: bool) -> None:
        self.log.append(f"asked for ports {sorted(ofports)} {on}")
        raise SwitchError("port p1")

    async def connections(self, zones: Collection[int]) -> list[Tracked]:
        if self.slow:
            await asyncio.sleep(0.01)
        self.log.append(f"asked for connections in {sorted(zones)}")
        raise SwitchError("the connection is closed")


@pytest.mark.parametrize(("slow", "first"), [(True, "port p1"), (False, "the connection is closed")])
def test_what_went_wrong_first_is_told_when_both_have_ended(slow: bool, first: str) -> None:  # noqa: FBT001
    switch = Torn(slow=slow)
    with pytest.raises(SwitchError, match=first):
        step(Reconciler(switch), policy())
    assert [done.split(" in ")[0] for done in sorted(switch.log)] == [
        "asked for connections",
        "asked for ports [1, 2] True",
    ]
    assert (switch.flows, switch.bundles) == ({}, 0)


def test_what_the_program_does_not_name_keeps_its_flag() -> None:
    present = Settings(frozenset({1, 7}), fragment_ports=True)
    change = change_between(FlowSet({}), present, Program(FlowSet({}), Paged({1: True, 2: True, 3: False})))
    assert change == Change(Diff(), close=frozenset({2}), open=frozenset(), fragment_ports=None)
    change = change_between(FlowSet({}), present, Program(FlowSet({}), Paged({1: False}), fragment_ports=False))
    assert change == Change(Diff(), close=frozenset(), open=frozenset({1}), fragment_ports=False)


def test_a_change_is_true_when_there_is_anything_to_do() -> None:
    assert not Change()
    assert Change(Diff(adds=(drift(),)))
    assert Change(close=frozenset({1}))
    assert Change(open=frozenset({1}))
    assert Change(fragment_ports=False)
    assert str(Change(fragment_ports=False)) == "+0 -0 ~0 flows, ports of fragments hidden"


def test_reading_tells_our_flows_from_others() -> None:
    ours = [drift(), flow(0, 1030, (m.IN_PORT(1),), (), p.OWNER << 48), flow(p.FIRST_OWN + p.OWN - 1, 1, (), (), 0)]
    others = [flow(0, 5, (), (), 0), flow(p.FIRST_OWN + p.OWN, 1, (), (), 0), flow(p.FIRST_OWN - 1, 1, (), (), 0)]
    switch = FakeSwitch([*ours, *others])
    switch.flagged[3] = True
    found = asyncio.run(read(switch))
    assert sorted(found.ours.flows()) == sorted(ours)
    assert sorted(found.others) == sorted(others)
    assert found.settings == Settings(frozenset({3}), fragment_ports=False)


def test_unknown_is_not_a_change() -> None:
    switch = FakeSwitch()
    reconciler = Reconciler(switch)
    step(reconciler, policy())
    before = dict(switch.flows)
    assert step(reconciler, None) is None
    assert step(reconciler, policy(), None) is None
    assert switch.flows == before
    assert not step(reconciler, policy())
    assert switch.dumps == 1


def test_learned_addresses_are_forgotten_when_an_endpoint_goes_but_not_when_one_comes() -> None:
    switch = FakeSwitch()
    reconciler = Reconciler(switch)
    step(reconciler, policy(), Bindings(HERE.endpoints[:1]))
    switch.log.clear()
    step(reconciler, policy())
    assert switch.log == ["close [2]", "bundle"]
    switch.log.clear()
    step(reconciler, policy(), Bindings(HERE.endpoints[:1]))
    assert switch.log == ["bundle", "forget"]
