"""The maths of each method as pure functions."""

from mmkd_plugin.functional.chen import (
    bounded_regression,
    hint_loss,
    soft_class_count,
    squared_distance,
    weighted_soft_binary_cross_entropy,
    weighted_soft_cross_entropy,
)
from mmkd_plugin.functional.fgd import FGDTerms, box_masks, channel_attention, fgd_loss, spatial_attention
from mmkd_plugin.functional.fgi import box_levels, box_regions, fgi_loss, imitation_masks, lit_cells
from mmkd_plugin.functional.holistic import discriminator_loss, generator_loss, gradient_penalty
from mmkd_plugin.functional.pspnet_kd import aux_smooth_l1_loss, logits_kl_loss
from mmkd_plugin.functional.soft_labels import soft_label_divergence
from mmkd_plugin.functional.structured_seg import node_similarity, pair_wise_loss, pixel_wise_loss

__all__ = [
    'FGDTerms',
    'aux_smooth_l1_loss',
    'bounded_regression',
    'box_levels',
    'box_masks',
    'box_regions',
    'channel_attention',
    'discriminator_loss',
    'fgd_loss',
    'fgi_loss',
    'generator_loss',
    'gradient_penalty',
    'hint_loss',
    'imitation_masks',
    'lit_cells',
    'logits_kl_loss',
    'node_similarity',
    'pair_wise_loss',
    'pixel_wise_loss',
    'soft_class_count',
    'soft_label_divergence',
    'spatial_attention',
    'squared_distance',
    'weighted_soft_binary_cross_entropy',
    'weighted_soft_cross_entropy',
]
