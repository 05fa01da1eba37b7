"""The policy that a command is about."""

from __future__ import annotations

import argparse
import sys

from ovsfw.policy.model import Policy
from ovsfw.sources.file import read_document, read_policy


def policy_of(args: argparse.Namespace) -> Policy:
    """The policy that --policy names.  Raises PolicyError, also for assertions, unless --no-assertions."""
    if not args.no_assertions:
        return read_policy(args.policy)
    document = read_document(args.policy)
    for failure in document.failures(document.judge()):
        print(f"ovsfw: warning: IGNORED because of --no-assertions: {failure}", file=sys.stderr)
    return document.policy
