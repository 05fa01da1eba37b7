"""The cases of `real` with the mechanism driver and the daemon, and more: `python -m tests.neutron.published`."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from tests.neutron.policy_lab import DAEMON, PolicyLab
from tests.neutron.real import CASES, across, bench_of, machines_of, passes, print_times


def main() -> int:
    """Start, run every case on every host, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--directory", type=Path, default=Path(".build/neutron-lab"))
    parser.add_argument("--drivers", nargs="+", default=[DAEMON, "openvswitch"])
    parser.add_argument("--only", default="", help="cases with this in their name")
    given = parser.parse_args()
    lab = PolicyLab(given.directory, tuple(given.drivers))
    began = time.monotonic()
    lab.start()
    print(f"a real Neutron with {len(lab.hosts)} hosts: {time.monotonic() - began:.0f} s", flush=True)
    benches = [bench_of(lab, host) for host in lab.hosts]
    failed = 0
    for bench in benches:
        machines = machines_of(bench)
        for case in [each for each in CASES if given.only in each.__name__]:
            failed += not passes(case, bench, machines)
    failed += not across(lab, benches)
    print_times(benches)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
