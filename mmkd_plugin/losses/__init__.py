"""The maths of each method: modules over the pure functions of ``mmkd_plugin.losses.functional``."""

from mmkd_plugin.losses.chen2017 import ChenBoundedRegressionLoss, ChenClassificationLoss, ChenHintLoss
from mmkd_plugin.losses.fgd import FGDLoss
from mmkd_plugin.losses.fgi import FGILoss

__all__ = [
    'ChenBoundedRegressionLoss',
    'ChenClassificationLoss',
    'ChenHintLoss',
    'FGDLoss',
    'FGILoss',
]
