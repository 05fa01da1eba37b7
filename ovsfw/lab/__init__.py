"""Open vSwitch and machines to play with, in network namespaces on this host.  The only place that starts processes."""
