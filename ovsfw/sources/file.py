"""A policy from a file on disk."""

from __future__ import annotations

from pathlib import Path

from ovsfw.errors import PolicyError, Problem
from ovsfw.policy.document import parse
from ovsfw.policy.model import Policy

# Larger than any policy; keeps /dev/zero and a mistaken disk image from filling the memory.
MAX_BYTES = 256 * 1024 * 1024


def read_policy(path: str | Path) -> Policy:
    """The policy in a file, which may be a pipe.

    Raises PolicyError when the file cannot be read or its document is wrong.
    """
    try:
        with Path(path).open("rb") as file:
            text = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise PolicyError([Problem(f"cannot be read: {said}", source=str(path))]) from None
    if len(text) > MAX_BYTES:
        raise PolicyError([Problem(f"larger than {MAX_BYTES // 1024**2} MiB; is it a policy?", source=str(path))])
    return parse(text, str(path))
