"""The maths of each method as pure functions."""

from mmkd_plugin.losses.functional.fgd import FGDTerms, box_masks, channel_attention, fgd_loss, spatial_attention

__all__ = ['FGDTerms', 'box_masks', 'channel_attention', 'fgd_loss', 'spatial_attention']
