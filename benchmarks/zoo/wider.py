"""A wider teacher of a model of the zoo."""

from __future__ import annotations

from typing import Any

from mmengine.config import ConfigDict

from mmkd_plugin.study.one_step import offline, walk

WIDER = 1.5
"""How much wider the teacher's neck or decode head is made."""


def wider(model: dict) -> ConfigDict | None:
    """The model with a wider neck, or decode head where it has no neck.

    Every width outside the backbone that equals that of the neck's output grows with it, so that the heads fit.

    Args:
        model: Config of a detector or segmentor.

    Returns:
        The wider model's config; None where its width is not one number.
    """
    model = offline(model)
    neck, head = _last(model.get('neck')), _last(model.get('decode_head'))
    width = neck.get('out_channels', neck.get('in_channels')) if neck else head.get('channels')
    if not isinstance(width, int):
        return None
    if not neck:
        head['channels'] = int(width * WIDER)
        return model
    for name, part in model.items():
        for node in walk(part) if name not in ('backbone', 'data_preprocessor') else ():
            for key, value in node.items():
                if key.endswith('channels') and isinstance(value, int) and value == width:
                    node[key] = int(width * WIDER)
    return model


def _last(part: Any) -> dict:
    """A part of a model, or the last one where several follow each other."""
    return (part[-1] if isinstance(part, (list, tuple)) else part) or {}
