"""Text."""

from __future__ import annotations

from mmkd_plugin.errors import DistillError


def without_prefix(text: str, prefix: str) -> str:
    """A text without its start, if it starts so; Python 3.8 lacks ``str.removeprefix``."""
    return text[len(prefix) :] if text.startswith(prefix) else text


def sentence(error: BaseException) -> str:
    """The first line of an error, with its class where it is not ours."""
    lines = [' '.join(line.split()) for line in str(error).splitlines() if line.strip()] or ['']
    text = lines[0] if len(lines[0]) < 300 else lines[0][:297] + '...'
    return text if isinstance(error, DistillError) else f'{type(error).__name__}: {text}'
