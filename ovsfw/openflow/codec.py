"""The one place that knows which OpenFlow codec is installed: Ryu, or os-ken, its continuation with the same API.

Only the message codec is used, not the application framework.  Importing this module starts nothing.
"""

from __future__ import annotations

try:
    from ryu.ofproto import ofproto_parser, ofproto_protocol
    from ryu.ofproto import ofproto_v1_4 as ofproto
    from ryu.ofproto import ofproto_v1_4_parser as parser

    NAME = "ryu"
except ImportError:
    from os_ken.ofproto import ofproto_parser, ofproto_protocol
    from os_ken.ofproto import ofproto_v1_4 as ofproto
    from os_ken.ofproto import ofproto_v1_4_parser as parser

    NAME = "os_ken"

DATAPATH = ofproto_protocol.ProtocolDesc(version=ofproto.OFP_VERSION)

__all__ = ["DATAPATH", "NAME", "ofproto", "ofproto_parser", "parser"]
