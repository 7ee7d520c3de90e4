"""What a model returns for a made-up image."""

from __future__ import annotations

from typing import Any, Callable

import torch
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from torch import Tensor

from mmkd_plugin.probe.anatomy import task_of
from mmkd_plugin.utilities.clips import detector_of
from mmkd_plugin.utilities.nested import tensors_of
from mmkd_plugin.utilities.rng import isolated_rng

SIDE = 256
"""Height and width of the image in pixels, where the model's preprocessor asks for no other."""


@torch.no_grad()
def outputs_of(model: BaseModel) -> tuple[str, list[Tensor]]:
    """Run a model on an image of noise, the same in each call.

    Args:
        model: A stock detector or segmentor in evaluation mode.

    Returns:
        What was run, and all tensors of what it returned: ``'outputs'`` for the features and the forward pass in tensor
        mode; ``'features'`` for these alone, where the forward pass takes more than an image (a text, a clip) or finds
        nothing on it; empty where the features do too.
    """
    ways: dict[str, Callable[[dict], Any]] = dict(
        features=lambda data: detector_of(model).extract_feat(data['inputs']),
        outputs=lambda data: model(**data, mode='tensor'),
    )
    ran, tensors = '', []
    for name, run in ways.items():
        try:
            with isolated_rng():
                found = list(tensors_of(_nested(run(model.data_preprocessor(made_up_item(model), False)))))
        except Exception:  # a model of any zoo may ask for more than an image
            continue
        if any(tensor.numel() for tensor in found):
            ran = name
            tensors += found
    return ran, tensors


def made_up_item(model: BaseModel, size: tuple[int, int] | None = None) -> dict[str, Any]:
    """One item of a data set, an image of noise, collated.

    Args:
        model: The stock model that it is for.
        size: Height and width; by default what the model's preprocessor asks for, or :data:`SIDE`.
    """
    height, width = size or getattr(model.data_preprocessor, 'size', None) or (SIDE, SIDE)
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)
    meta = dict(img_id=0, img_shape=(height, width), ori_shape=(height, width), scale_factor=(1.0, 1.0), flip=False)
    return dict(inputs=[image], data_samples=[_sample(model)(metainfo=meta)])


def _sample(model: BaseModel) -> type[BaseDataElement]:
    """The data sample of the model's package, which the other one need not have installed."""
    if task_of(model) == 'segmentation':
        from mmseg.structures import SegDataSample

        return SegDataSample
    from mmdet.structures import DetDataSample

    return DetDataSample


def _nested(item: Any) -> Any:
    """Data elements as dicts, and what they hold."""
    if isinstance(item, BaseDataElement):
        return {key: _nested(value) for key, value in item.items()}
    if isinstance(item, dict):
        return {key: _nested(value) for key, value in item.items()}
    if isinstance(item, (list, tuple)):
        return [_nested(each) for each in item]
    return item
