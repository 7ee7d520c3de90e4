"""Knowledge distillation for MMDetection and MMSegmentation in three lines of configuration.

Importing the package is cheap, and needs no other: its parts are imported by MMEngine when a config names them. From
then on ``mmkd_plugin::`` bases are known and ``import mmrazor.models`` works on any supported torch.
"""

from mmkd_plugin.compat import config_hook
from mmkd_plugin.version import __version__

config_hook.install()
config_hook.install_for_mmrazor()

__all__ = ['__version__']
