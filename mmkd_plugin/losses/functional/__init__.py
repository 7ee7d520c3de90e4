"""The maths of each method as pure functions."""

from mmkd_plugin.losses.functional.chen2017 import (
    bounded_regression,
    hint_loss,
    weighted_soft_binary_cross_entropy,
    weighted_soft_cross_entropy,
)
from mmkd_plugin.losses.functional.fgd import FGDTerms, box_masks, channel_attention, fgd_loss, spatial_attention
from mmkd_plugin.losses.functional.fgi import box_levels, box_regions, fgi_loss, imitation_masks, lit_cells

__all__ = [
    'FGDTerms',
    'bounded_regression',
    'box_levels',
    'box_masks',
    'box_regions',
    'channel_attention',
    'fgd_loss',
    'fgi_loss',
    'hint_loss',
    'imitation_masks',
    'lit_cells',
    'spatial_attention',
    'weighted_soft_binary_cross_entropy',
    'weighted_soft_cross_entropy',
]
