"""Text."""

from __future__ import annotations


def without_prefix(text: str, prefix: str) -> str:
    """A text without its start, if it starts so; Python 3.8 lacks ``str.removeprefix``."""
    return text[len(prefix) :] if text.startswith(prefix) else text
