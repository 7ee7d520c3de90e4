"""Networks that MMDetection and MMSegmentation do not have; those of a package that is not installed are left out."""

from contextlib import suppress

from mmkd_plugin.models.classic import VGG, VGGM, AlexNet
from mmkd_plugin.models.espnet import ESPNet
from mmkd_plugin.models.factored import factored
from mmkd_plugin.models.lite_shuffle_net import LiteShuffleNet

__all__ = ['VGG', 'AlexNet', 'ESPNet', 'LiteShuffleNet', 'VGGM', 'factored']

with suppress(ImportError):
    from mmkd_plugin.models.esp_head import ESPHead

    __all__ += ['ESPHead']
