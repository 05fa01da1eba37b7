"""Policy and bindings to flows.  Pure; the only place that knows both security groups and OpenFlow."""
