"""The parts of MMRazor that the plugin builds on, importable on any supported torch."""

from mmkd_plugin.compat import apply

apply()

from mmrazor.models.algorithms.base import BaseAlgorithm  # noqa: E402
from mmrazor.models.architectures.connectors.base_connector import BaseConnector  # noqa: E402
from mmrazor.models.distillers.configurable_distiller import ConfigurableDistiller  # noqa: E402
from mmrazor.models.task_modules.recorder import (  # noqa: E402
    ModuleInputsRecorder,
    ModuleOutputsRecorder,
    RecorderManager,
)
from mmrazor.models.task_modules.recorder.base_recorder import BaseRecorder  # noqa: E402

__all__ = [
    'BaseAlgorithm',
    'BaseConnector',
    'BaseRecorder',
    'ConfigurableDistiller',
    'ModuleInputsRecorder',
    'ModuleOutputsRecorder',
    'RecorderManager',
]
