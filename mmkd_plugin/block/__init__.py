"""The ``distill`` block: typed, checked, and expanded into an ordinary MMRazor algorithm config."""

from mmkd_plugin.block.block import DistillBlock
from mmkd_plugin.block.expand import expand_block, expand_config, require_plain_student, required_hooks

__all__ = ['DistillBlock', 'expand_block', 'expand_config', 'require_plain_student', 'required_hooks']
