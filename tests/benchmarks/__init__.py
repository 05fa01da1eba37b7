"""What ovsfw must reach, measured side by side with its limits on a private Open vSwitch (see scripts/bench)."""
