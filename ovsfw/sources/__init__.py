"""Where a policy comes from."""
