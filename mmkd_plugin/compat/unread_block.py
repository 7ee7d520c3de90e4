"""A ``distill`` block that nothing would read: the runner is another, or the block's name has a typing error."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from mmkd_plugin.errors import DistillError, nearest

BLOCK = 'distill'
BLOCK_KEYS = (
    'teacher',
    'teacher_ckpt',
    'teacher_prefix',
    'trust_checkpoint',
    'teacher_scale',
    'teachers',
    'methods',
    'inherit',
    'unlabelled',
    'self_check',
    'settle',
    'share',
    'teacher_options',
    'teacher_cache',
    'compile_losses',
)
"""What a user may write under ``distill``; this floor knows nothing of the block itself."""
READS = 'reads_distill_block'
"""Attribute of the runners that turn the block into a distilled run."""
RUNNER = 'mmkd_plugin.DistillRunner'
FLEXIBLE_RUNNER = 'mmkd_plugin.FlexibleDistillRunner'
"""The one that takes MMEngine's strategies."""


def refuse_unread_block(runner: Any) -> None:
    """Refuse to train where the config has a block that the runner passes over.

    Testing is not refused: the student is tested without its teacher.

    Args:
        runner: Any runner of MMEngine; it has its config as ``cfg``.

    Raises:
        DistillError: Naming the runner to take, or the name to correct.
    """
    refuse_runner(runner, runner.cfg)


def refuse_runner(runner: Any, cfg: Any) -> None:
    """Refuse a runner that does not read the block of its config.

    Args:
        runner: The runner.
        cfg: Its config, None where it was built without one.

    Raises:
        DistillError: Naming the runner to take, or the name to correct.
    """
    refuse_misspelt_block(cfg)
    block = (cfg or {}).get(BLOCK)
    if not getattr(runner, READS, False) and isinstance(block, Mapping) and _looks_like_a_block(block):
        flexible = any(cls.__name__ == 'FlexibleRunner' for cls in type(runner).__mro__)
        raise DistillError(
            f'The config has a distill block, but its runner is {type(runner).__name__}, which does not read it and '
            f'would train without the teacher; set runner_type="{FLEXIBLE_RUNNER if flexible else RUNNER}", or '
            'distill=None to train without distillation.'
        )


def refuse_misspelt_block(cfg: Any) -> None:
    """Refuse a block under another name than ``distill``.

    Args:
        cfg: A whole config, or None.

    Raises:
        DistillError: Naming the key.
    """
    for key, value in (cfg or {}).items():
        # A part of another package that is built from its config has a type.
        if key == BLOCK or not isinstance(value, Mapping) or 'type' in value:
            continue
        if _close(str(key).lower(), [BLOCK], 0.85) and _looks_like_a_block(value):
            raise DistillError(f'"{key}" in the config is read by nothing: {nearest(str(key).lower(), [BLOCK])}')


def _looks_like_a_block(value: Mapping[str, Any]) -> bool:
    """Whether a dict has a key of the block, or one that was to be one."""
    return any(_close(str(key), BLOCK_KEYS, 0.8) for key in value)


def _close(word: str, words: Iterable[str], cutoff: float) -> bool:
    return bool(get_close_matches(word, list(words), n=1, cutoff=cutoff))
