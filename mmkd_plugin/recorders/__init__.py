"""Where a tensor or a fact of the batch is taken from while a model runs."""

from mmkd_plugin.recorders.batch import BatchRecorder
from mmkd_plugin.recorders.module_output import ModuleOutputRecorder
from mmkd_plugin.recorders.predictions import AnchorPredictionsRecorder, RoIPredictionsRecorder
from mmkd_plugin.recorders.priors import PriorsRecorder
from mmkd_plugin.recorders.samples import AnchorSamplesRecorder, RoISamplesRecorder

__all__ = [
    'AnchorPredictionsRecorder',
    'AnchorSamplesRecorder',
    'BatchRecorder',
    'ModuleOutputRecorder',
    'PriorsRecorder',
    'RoIPredictionsRecorder',
    'RoISamplesRecorder',
]
