"""The maths of each method: modules over the pure functions of ``mmkd_plugin.losses.functional``."""

from mmkd_plugin.losses.fgd import FGDLoss

__all__ = ['FGDLoss']
