"""Which record reaches which loss argument, over how many levels."""

from mmkd_plugin.distillers.distiller import Distiller

__all__ = ['Distiller']
