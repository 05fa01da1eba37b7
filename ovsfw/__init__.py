"""ovsfw: security groups as OpenFlow conntrack flows on Open vSwitch."""

__version__ = "0.1.0"
