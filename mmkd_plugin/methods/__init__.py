"""Distillation methods: what a ``distill`` block can name as a ``type``, and the losses they are made of."""

from mmkd_plugin.methods.base import Method
from mmkd_plugin.methods.chen import Chen, ChenClassificationLoss, ChenHintLoss, ChenRegressionLoss
from mmkd_plugin.methods.feature import Feature
from mmkd_plugin.methods.fgd import FGD, FGDLoss
from mmkd_plugin.methods.fgi import FGI, FGILoss
from mmkd_plugin.methods.holistic import Holistic, HolisticLoss
from mmkd_plugin.methods.level import LevelMethod
from mmkd_plugin.methods.loss import DistillLoss
from mmkd_plugin.methods.parts import Parts
from mmkd_plugin.methods.pspnet_kd import PSPNetKD, PSPNetKDLoss
from mmkd_plugin.methods.structured_seg import PairWise, PairWiseLoss, PixelWise, PixelWiseLoss

__all__ = [
    'Chen',
    'ChenClassificationLoss',
    'ChenHintLoss',
    'ChenRegressionLoss',
    'DistillLoss',
    'FGD',
    'FGDLoss',
    'FGI',
    'FGILoss',
    'Feature',
    'Holistic',
    'HolisticLoss',
    'LevelMethod',
    'Method',
    'PSPNetKD',
    'PSPNetKDLoss',
    'PairWise',
    'PairWiseLoss',
    'Parts',
    'PixelWise',
    'PixelWiseLoss',
]
