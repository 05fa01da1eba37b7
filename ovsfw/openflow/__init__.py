"""What a switch understands: matches, actions, flows.  Pure, and knows nothing of security groups."""
