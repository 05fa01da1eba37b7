"""Which decisions of a policy are to be logged.  Pure."""

from __future__ import annotations

from ovsfw.policy.model import Action, Log, Policy, Rule

ACCEPTED = (Log.ACCEPTED, Log.ALL)
DROPPED = (Log.DROPPED, Log.ALL)


def is_logged(rule: Rule, log: Log | None) -> bool:
    """Whether what a rule decides is among what is to be logged; a rule that passes decides nothing."""
    if rule.action is Action.PASS:
        return False
    return log in (ACCEPTED if rule.action is Action.ALLOW else DROPPED)


def unloggable(rule: Rule) -> str:
    """Why a rule would never log what it is told to, and what to do; empty where it would."""
    if rule.log is None or is_logged(rule, rule.log):
        return ""
    if rule.action is Action.PASS:
        return "a rule that passes decides nothing; log what decides after it"
    if rule.action is Action.ALLOW:
        return "this rule accepts, and drops nothing; use accepted here, and dropped for a security group"
    return "this rule accepts nothing; use dropped"


def logs_anything(policy: Policy) -> bool:
    """Whether any decision is to be logged."""
    return any(group.log for group in policy.security_groups.values()) or any(rule.log for rule in policy.rules)
