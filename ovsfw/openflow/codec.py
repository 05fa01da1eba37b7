"""The one place that knows which OpenFlow codec is installed: Ryu, or os-ken, its continuation with the same API.

Only the message codec is used, not the application framework.  Importing this module starts nothing.
"""

from __future__ import annotations

from types import ModuleType
from typing import NamedTuple

try:
    from ryu.ofproto import (
        ofproto_parser,
        ofproto_v1_0,
        ofproto_v1_0_parser,
        ofproto_v1_4,
        ofproto_v1_4_parser,
    )

    NAME = "ryu"
except ImportError:
    from os_ken.ofproto import (
        ofproto_parser,
        ofproto_v1_0,
        ofproto_v1_0_parser,
        ofproto_v1_4,
        ofproto_v1_4_parser,
    )

    NAME = "os_ken"

ofproto, parser = ofproto_v1_4, ofproto_v1_4_parser
# OpenFlow 1.0, for the one thing that no later version can do (see port.py).
ofproto10, parser10 = ofproto_v1_0, ofproto_v1_0_parser


class Flavour(NamedTuple):
    """What a message asks of the datapath it is made for.

    The codec's own such class refuses versions that an application in the same process does not want: Neutron's agent
    wants 1.3 alone.
    """

    ofproto: ModuleType
    ofproto_parser: ModuleType


DATAPATH = Flavour(ofproto, parser)
DATAPATH10 = Flavour(ofproto10, parser10)

__all__ = ["DATAPATH", "DATAPATH10", "NAME", "ofproto", "ofproto10", "ofproto_parser", "parser", "parser10"]
