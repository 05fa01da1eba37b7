"""Explains: what a policy says of one connection, what the switch does with it, and what was dropped and why."""
