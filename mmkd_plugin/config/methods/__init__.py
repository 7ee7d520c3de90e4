"""Methods that a ``distill`` block can name, by their ``type``."""

from mmkd_plugin.config.methods.base import Method, Parts
from mmkd_plugin.config.methods.fgd import FGD

METHODS: dict[str, type[Method]] = {method.__name__: method for method in (FGD,)}

__all__ = ['FGD', 'METHODS', 'Method', 'Parts']
