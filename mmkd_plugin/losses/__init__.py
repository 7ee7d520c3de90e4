"""The maths of each method: modules over the pure functions of ``mmkd_plugin.functional``."""

from mmkd_plugin.losses.chen import ChenClassificationLoss, ChenHintLoss, ChenRegressionLoss
from mmkd_plugin.losses.fgd import FGDLoss
from mmkd_plugin.losses.fgi import FGILoss
from mmkd_plugin.losses.holistic import HolisticLoss
from mmkd_plugin.losses.pspnet_kd import PSPNetKDLoss
from mmkd_plugin.losses.structured_seg import PairWiseLoss, PixelWiseLoss
from mmkd_plugin.models.discriminator import Discriminator

__all__ = [
    'ChenClassificationLoss',
    'ChenHintLoss',
    'ChenRegressionLoss',
    'Discriminator',
    'FGDLoss',
    'FGILoss',
    'HolisticLoss',
    'PSPNetKDLoss',
    'PairWiseLoss',
    'PixelWiseLoss',
]
