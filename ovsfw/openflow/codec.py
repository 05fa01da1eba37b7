"""The one place that knows which OpenFlow codec is installed: Ryu, or os-ken, its continuation with the same API.

Only the message codec is used, not the application framework.  Importing this module starts nothing.
"""

from __future__ import annotations

try:
    from ryu.ofproto import (
        ofproto_parser,
        ofproto_protocol,
        ofproto_v1_0,
        ofproto_v1_0_parser,
        ofproto_v1_4,
        ofproto_v1_4_parser,
    )

    NAME = "ryu"
except ImportError:
    from os_ken.ofproto import (
        ofproto_parser,
        ofproto_protocol,
        ofproto_v1_0,
        ofproto_v1_0_parser,
        ofproto_v1_4,
        ofproto_v1_4_parser,
    )

    NAME = "os_ken"

ofproto, parser = ofproto_v1_4, ofproto_v1_4_parser
# OpenFlow 1.0, for the one thing that no later version can do (see port.py).
ofproto10, parser10 = ofproto_v1_0, ofproto_v1_0_parser

DATAPATH = ofproto_protocol.ProtocolDesc(version=ofproto.OFP_VERSION)
DATAPATH10 = ofproto_protocol.ProtocolDesc(version=ofproto10.OFP_VERSION)

__all__ = ["DATAPATH", "DATAPATH10", "NAME", "ofproto", "ofproto10", "ofproto_parser", "parser", "parser10"]
