"""What the operator wants: security groups, rules, ports.  Pure, and knows nothing of OpenFlow."""
