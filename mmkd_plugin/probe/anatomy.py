"""The parts of a detector or segmentor that others look up: its task, its trunk and its auxiliary heads."""

from __future__ import annotations

from torch import nn

from mmkd_plugin.utilities.clips import detector_of, detector_path

_BOX_HEADS = ('bbox_head', 'rpn_head', 'roi_head', 'mask_head')


def task_of(model: nn.Module) -> str:
    """What a model predicts.

    Args:
        model: Any model.

    Returns:
        ``'segmentation'`` for one label map, ``'detection'`` for objects, empty where the model shows neither.
    """
    if isinstance(getattr(model, 'decode_head', None), nn.Module):
        return 'segmentation'
    model = detector_of(model)
    # By name, because MMDetection need not be installed where segmentors are distilled.
    detector = any(
        kind.__name__ == 'BaseDetector' and kind.__module__.startswith('mmdet.') for kind in type(model).__mro__
    )
    if detector or any(isinstance(getattr(model, name, None), nn.Module) for name in _BOX_HEADS):
        return 'detection'
    return ''


def trunk_name(model: nn.Module) -> str:
    """Path of the module whose output the heads work on: the neck, or the backbone where there is no neck."""
    return detector_path(model) + ('neck' if getattr(detector_of(model), 'neck', None) is not None else 'backbone')


def auxiliary_heads(model: nn.Module) -> dict[str, nn.Module]:
    """The auxiliary heads of a segmentor by path; empty for any other model.

    Only training calls them: the plain forward pass of a segmentor stops at its decode head.
    """
    heads = getattr(model, 'auxiliary_head', None)
    if isinstance(heads, nn.ModuleList):
        return {f'auxiliary_head.{index}': head for index, head in enumerate(heads)}
    return {'auxiliary_head': heads} if isinstance(heads, nn.Module) else {}
