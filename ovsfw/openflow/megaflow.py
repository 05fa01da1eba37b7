"""The datapath's cached flows (megaflows), as `ovs-appctl dpctl/show` and `dpctl/dump-flows -m` tell of them.

Text in, numbers out.  A packet is compared with one mask after another until a flow is found, so it is the number of
masks that makes a datapath slow; the kernel's has one list of them, the userspace one a list for each port that packets
come in by (lib/dpif-netdev.c, dp_netdev_pmd_lookup_dpcls()).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

_FLOWS = re.compile(r"^  flows: (\d+)$", re.MULTILINE)
_MASKS = re.compile(r"^  masks: hit:\d+ total:(\d+)", re.MULTILINE)
_PORT = re.compile(r"in_port\(([^)]*)\)")
# Of `+syn-rst` the mask is which flags are named; of `value/mask` what is behind the stroke; of a value alone, all.
_SIGN = re.compile(r"[+-](?=[a-z])")
_VALUE = re.compile(r"(?<=[=(,])[^=(),/~]+(?=[/,)])")


def flows_and_masks(show: str) -> tuple[int, int | None]:
    """How many there are, by `dpctl/show`; of the masks only the kernel's datapath tells."""
    flows, masks = _FLOWS.search(show), _MASKS.search(show)
    return int(flows[1]) if flows else 0, int(masks[1]) if masks else None


def mask(line: str) -> str:
    """What a line of a dump matches, without the values.

    >>> mask("recirc_id(0),in_port(p1),ipv4(src=10.0.0.0/255.0.0.0,proto=6),tcp_flags(-rst), packets:9")
    'recirc_id(),in_port(),ipv4(src=/255.0.0.0,proto=),tcp_flags(~rst)'
    """
    match = line.partition(" packets:")[0].rstrip(",")
    if match.startswith("ufid:"):
        match = match.partition(",")[2].lstrip()
    return _VALUE.sub("", _SIGN.sub("~", match))


class MaskCount:
    """Counts flows, and masks by the port that packets come in by."""

    def __init__(self) -> None:
        """None yet."""
        self.flows = 0
        self._by_port: dict[str, set[str]] = defaultdict(set)

    def add(self, lines: Iterable[str]) -> None:
        """Some lines of a dump; those that are no flows are skipped."""
        for line in lines:
            port = _PORT.search(line)
            if " packets:" in line and port:
                self.flows += 1
                self._by_port[port[1]].add(mask(line))

    @property
    def most(self) -> int:
        """The masks of the port that has the most."""
        return max(map(len, self._by_port.values()), default=0)
