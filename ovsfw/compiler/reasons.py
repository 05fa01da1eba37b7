"""Cookies: who put a flow there, by which version of the pipeline, why, and for whom."""

from __future__ import annotations

from enum import Enum


class Reason(Enum):
    """Why a flow exists, when it is not a rule; the text is what people are told."""

    CLASSIFY = 1, "packets of this endpoint are filtered"
    UNKNOWN_PORT = 2, "a port that no policy knows, or that nobody has looked at yet, passes nothing"
    UPLINK = 3, "packets from outside are forwarded to the endpoint they are for"
    UPLINK_TAGGED = 4, "an access port carries no tagged packets"
    SOURCE = 5, "an endpoint sends from its own MAC and IP address"
    ARP = 6, "an endpoint speaks ARP for itself"
    NEIGHBOUR = 7, "an endpoint speaks neighbour discovery for itself"
    DHCP_CLIENT = 8, "an endpoint may ask for its address"
    NO_SERVER = 9, "an endpoint is no DHCP server and no router"
    NO_TAG = 10, "an endpoint sends no VLAN tags"
    SPOOF = 11, "the source is not the endpoint's own, or of no known kind"
    STANDING = 12, "without this a network does not work"
    TRACK = 13, "conntrack says which connection it belongs to"
    UNTRACKED = 14, "stateless groups are judged packet by packet"
    INVALID = 15, "conntrack cannot place it in any connection"
    BLOCKED = 16, "its connection is no longer allowed"
    ESTABLISHED = 17, "its connection was accepted before"
    JUDGE = 18, "a new connection is judged by the rules"
    GROUPS = 19, "the groups of this endpoint, one after the other"
    RULES = 20, "rules of its IP version"
    RULE = 21, "a rule speaks"
    MEMBER = 22, "an address of the remote sets that rules refer to"
    ACCEPTED = 23, "a rule accepted it"
    DENIED = 24, "no rule accepted it"
    TIER = 41, "the rules of a tier, one after the other"
    SPOKEN = 42, "a rule has spoken; the others are not asked"
    REFUSED = 43, "a rule of a tier denies it"
    REJECTED = 44, "a rule of a tier rejects it"
    NO_PORTS = 45, "the first fragment of a datagram must show its ports"
    FORWARD = 25, "this MAC address lives here"
    FLOOD = 26, "broadcast and multicast go to every endpoint of the network that accepts them"
    LEAVE = 27, "not for an endpoint of this host"
    COMMIT = 28, "remember the connection and the rules that let it in"
    FRAGMENT = 32, "later fragments have no ports; they pass if the first one does"
    COMPLETE = 33, "all fragments of a datagram are here, so the first one was accepted"
    LIMIT = 50, "its network has as many connections as it may, so this one cannot be remembered"
    DELIVER = 29, "into the endpoint"
    NOT_DELIVERED = 30, "not of a kind that endpoints get"
    MISS = 31, "nothing above applies"
    TRUSTED = 51, "its network names who may send this, and it is one of them"
    UNTRUSTED = 52, "its network names who may send this, and it is none of them"
    HELPER = 53, "a helper reads this connection, and expects the data connections agreed in it"
    EXPECTED = 54, "a helper expects this data connection"
    UNEXPECTED = 55, "a helper expects it, but not at this endpoint, from elsewhere, or in fragments"
    HOOK = 40, "every packet of the bridge goes through the filter"
    REMARK = 34, "what live connections may still do follows the policy"

    def __init__(self, number: int, text: str) -> None:
        self.number = number
        self.text = text


# |-- owner 16 --|-- version 8 --|-- reason 8 --|-- hint 32 --|
OWNER = 0x0F5F
VERSION = 1


def cookie(reason: Reason, hint: int = 0) -> int:
    """Who put the flow there, by which version of the pipeline, why, and for whom.

    The hint of a RULE is its rule hint; of a flow for an endpoint, its ofport; of a network's, its register value.
    """
    return OWNER << 48 | VERSION << 40 | reason.number << 32 | hint


_REASONS = {reason.number: reason for reason in Reason}


def read_cookie(value: int) -> tuple[Reason, int] | None:
    """The reason and hint in a cookie; None when it is not ours or from a version with other reasons."""
    reason = _REASONS.get(value >> 32 & 0xFF)
    if value >> 48 != OWNER or reason is None:
        return None
    return reason, value & 0xFFFFFFFF
