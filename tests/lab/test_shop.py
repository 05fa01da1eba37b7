"""The demo's policy on real packets, by flows of the compiler."""

from __future__ import annotations

import asyncio

import pytest

from ovsfw.lab.demo import POLICY, enforce, without
from ovsfw.lab.machines import Place
from ovsfw.lab.matrix import measure
from ovsfw.lab.show import as_text
from ovsfw.lab.topology import down, up
from ovsfw.policy.model import Direction, Policy

pytestmark = [pytest.mark.ovs, pytest.mark.packets]


def test_the_shop_is_as_its_policy_says(place: Place, shop: Policy) -> None:
    lab = up(shop, place, str(POLICY))
    try:
        asyncio.run(enforce(lab, shop))
        matrix = asyncio.run(measure(lab, shop))
        assert [f"{outcome.probe}: {outcome.problems}" for outcome in matrix.differences] == []
        assert sum(outcome.hints is not None for outcome in matrix.outcomes) > 300
        assert "  tcp/5432               from app                          by db: tcp/5432 from group app" in as_text(
            matrix
        )

        rule = next(rule for rule in shop.security_groups["db"].rules if rule.direction is Direction.INGRESS)
        smaller = without(shop, rule)
        assert "-3" in asyncio.run(enforce(lab, smaller))
        after = asyncio.run(measure(lab, smaller, matrix.services))
        assert after.differences == ()
        lost = [
            str(old.probe) for old, new in zip(matrix.outcomes, after.outcomes, strict=True) if old.passed > new.passed
        ]
        assert lost == ["app -> db tcp/5432 IPv4"]
    finally:
        down(place)
