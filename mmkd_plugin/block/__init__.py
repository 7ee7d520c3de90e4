"""The ``distill`` block: typed, checked, and expanded into an ordinary MMRazor algorithm config."""

from mmkd_plugin.block.block import DistillBlock
from mmkd_plugin.block.expand import expand_block, expand_config, require_plain_student, required_hooks
from mmkd_plugin.block.teacher_cache import CacheBlock
from mmkd_plugin.block.unlabelled import UnlabelledBlock, mix_unlabelled

__all__ = [
    'CacheBlock',
    'DistillBlock',
    'UnlabelledBlock',
    'expand_block',
    'expand_config',
    'mix_unlabelled',
    'require_plain_student',
    'required_hooks',
]
