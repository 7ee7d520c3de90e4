"""What a model consists of and what can be recorded in it."""

from mmkd_plugin.probe.maps import HeadPair
from mmkd_plugin.probe.models import ModelPair, ModelTaps, probe
from mmkd_plugin.probe.taps import LevelPair

__all__ = ['HeadPair', 'LevelPair', 'ModelPair', 'ModelTaps', 'probe']
