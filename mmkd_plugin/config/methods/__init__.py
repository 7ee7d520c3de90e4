"""Methods that a ``distill`` block can name, by their ``type``."""

from mmkd_plugin.config.methods.base import Method, Parts
from mmkd_plugin.config.methods.chen import Chen
from mmkd_plugin.config.methods.feature import Feature
from mmkd_plugin.config.methods.fgd import FGD
from mmkd_plugin.config.methods.fgi import FGI
from mmkd_plugin.config.methods.pspnet_kd import PSPNetKD
from mmkd_plugin.config.methods.structured_seg import Holistic, PairWise, PixelWise

METHODS: dict[str, type[Method]] = {
    method.__name__: method for method in (Chen, FGD, FGI, Feature, Holistic, PSPNetKD, PairWise, PixelWise)
}

__all__ = [
    'Chen',
    'FGD',
    'FGI',
    'METHODS',
    'Feature',
    'Holistic',
    'Method',
    'PSPNetKD',
    'PairWise',
    'Parts',
    'PixelWise',
]
