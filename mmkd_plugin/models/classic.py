"""The plain networks of the first detectors, as backbones with a single map of stride 16: VGG, AlexNet and VGG-M."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from mmcv.cnn import VGG as Layers
from mmcv.cnn import AlexNet as AlexNetLayers
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmkd_plugin.errors import DistillError
from mmkd_plugin.registry import MODELS


class PlainBackbone(BaseModule):
    """Convolutions one behind the other, in stages.

    The layers are called ``features.0`` and so on, as in the checkpoints of torchvision and of the model zoo.

    Args:
        features: All layers.
        ends: The index behind the last layer of each stage.
        out_indices: Stages whose outputs are returned, from 0.
        frozen_stages: How many stages keep their weights.
        init_cfg: MMEngine initialisation, such as ``dict(type='Pretrained', checkpoint='torchvision://vgg16')``.

    Raises:
        DistillError: If a stage does not exist.
    """

    def __init__(
        self,
        features: nn.Sequential,
        ends: Sequence[int],
        out_indices: Sequence[int],
        frozen_stages: int,
        init_cfg: dict | None,
    ) -> None:
        super().__init__(init_cfg)
        stages = len(ends)
        if not out_indices or not all(0 <= index < stages for index in out_indices) or not 0 <= frozen_stages <= stages:
            raise DistillError(
                f'{type(self).__name__} has the stages 0 to {stages - 1}, but out_indices is {tuple(out_indices)} and '
                f'frozen_stages {frozen_stages}; name stages that it has.'
            )
        self.features = features
        self.ends = tuple(ends)
        self.out_indices = tuple(out_indices)
        features[: self.ends[frozen_stages - 1] if frozen_stages else 0].requires_grad_(False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map ``(N, 3, H, W)`` to one ``(N, C, H / stride, W / stride)`` for each of ``out_indices``."""
        outputs = []
        start = 0
        for stage, end in enumerate(self.ends):
            images = self.features[start:end](images)
            start = end
            if stage in self.out_indices:
                outputs.append(images)
        return tuple(outputs)


@MODELS.register_module()
class VGG(PlainBackbone):
    """VGG, Simonyan and Zisserman, ICLR 2015, without its last pooling.

    Args:
        depth: 11, 13, 16 or 19.
        out_indices: Stages whose outputs are returned; stage 4, ``conv5_3`` of VGG16, has stride 16 and 512 channels.
        frozen_stages: How many stages keep their weights; the first Faster R-CNN froze two.
        init_cfg: MMEngine initialisation.
    """

    def __init__(
        self, depth: int, out_indices: Sequence[int] = (4,), frozen_stages: int = 2, init_cfg: dict | None = None
    ) -> None:
        if depth not in Layers.arch_settings:
            raise DistillError(f'VGG has no depth {depth}; choose one of {", ".join(map(str, Layers.arch_settings))}.')
        layers = Layers(depth, with_last_pool=False)
        ends = [end for _, end in layers.range_sub_modules]
        super().__init__(layers.features, ends, out_indices, frozen_stages, init_cfg)


@MODELS.register_module()
class AlexNet(PlainBackbone):
    """AlexNet in one stream, Krizhevsky, 2014, without its last pooling: one stage of stride 16 and 256 channels.

    Args:
        init_cfg: MMEngine initialisation.
    """

    def __init__(self, init_cfg: dict | None = None) -> None:
        features = AlexNetLayers().features[:-1]
        super().__init__(features, [len(features)], (0,), 0, init_cfg)


@MODELS.register_module()
class VGGM(PlainBackbone):
    """VGG-M (CNN-M), Chatfield et al., BMVC 2014: one stage of stride 16 and 512 channels.

    Args:
        init_cfg: MMEngine initialisation.
    """

    def __init__(self, init_cfg: dict | None = None) -> None:
        norm = functools.partial(nn.LocalResponseNorm, 5, alpha=5e-4, beta=0.75, k=2.0)
        features = nn.Sequential(
            nn.Conv2d(3, 96, 7, 2),
            nn.ReLU(inplace=True),
            norm(),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            nn.Conv2d(96, 256, 5, 2, 1),
            nn.ReLU(inplace=True),
            norm(),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            nn.Conv2d(256, 512, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(512, 512, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(512, 512, 3, padding=1),
            nn.ReLU(inplace=True),
        )
        super().__init__(features, [len(features)], (0,), 0, init_cfg)
