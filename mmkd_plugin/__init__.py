"""Knowledge distillation for MMDetection and MMSegmentation in three lines of configuration.

Importing the package is cheap: its parts are imported by MMEngine when a config names them.
"""

from mmkd_plugin.compat import config_hook
from mmkd_plugin.version import __version__

config_hook.install()

__all__ = ['__version__']
