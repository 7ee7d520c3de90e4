"""Where a tensor or the ground truth is taken from while a model runs."""

from mmkd_plugin.recorders.feature import FeatureRecorder
from mmkd_plugin.recorders.ground_truth import GroundTruthRecorder

__all__ = ['FeatureRecorder', 'GroundTruthRecorder']
