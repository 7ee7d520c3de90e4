"""Where a tensor or the ground truth is taken from while a model runs."""

from mmkd_plugin.recorders.feature import FeatureRecorder
from mmkd_plugin.recorders.ground_truth import GroundTruthRecorder
from mmkd_plugin.recorders.image import ImageRecorder
from mmkd_plugin.recorders.predictions import AnchorPredictionsRecorder, RoIPredictionsRecorder
from mmkd_plugin.recorders.priors import PriorsRecorder
from mmkd_plugin.recorders.samples import AnchorSamplesRecorder, RoISamplesRecorder
from mmkd_plugin.recorders.semantic_map import SemanticMapRecorder

__all__ = [
    'AnchorPredictionsRecorder',
    'AnchorSamplesRecorder',
    'FeatureRecorder',
    'GroundTruthRecorder',
    'ImageRecorder',
    'PriorsRecorder',
    'RoIPredictionsRecorder',
    'RoISamplesRecorder',
    'SemanticMapRecorder',
]
