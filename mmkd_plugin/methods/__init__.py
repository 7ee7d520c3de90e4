"""Methods that a ``distill`` block can name, by their ``type``."""

from mmkd_plugin.methods.base import Method, Parts
from mmkd_plugin.methods.chen import Chen
from mmkd_plugin.methods.feature import Feature
from mmkd_plugin.methods.fgd import FGD
from mmkd_plugin.methods.fgi import FGI
from mmkd_plugin.methods.pspnet_kd import PSPNetKD
from mmkd_plugin.methods.structured_seg import Holistic, PairWise, PixelWise

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
