"""The demos on one machine end well; on the kernel's datapath, `scripts/test-vagrant guest` runs them."""

from __future__ import annotations

import pytest

from tests.replay import ROOT, shell

pytestmark = [pytest.mark.ovs, pytest.mark.packets]
DEMOS = ["20-a-rule-goes", "30-kill-daemon-and-switch", "40-flows-are-lost", "50-spoofing-tenant", "80-hybrid-bridge"]


@pytest.mark.parametrize("demo", DEMOS)
def test_a_demo_ends_with_a_truth_table_without_differences(demo: str) -> None:
    with shell() as terminal:
        printed = terminal.run(f"OVSFW_VENV=$PWD/.build/venv {ROOT}/vagrant/demo/{demo}.sh")
    assert terminal.status == 0, "\n".join(printed)
    assert printed[-1].startswith("matrix: 2178 probes, 2178 agree, 0 differ"), "\n".join(printed)
