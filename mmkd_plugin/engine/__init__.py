"""The runner and the hooks of a distilled run."""

from mmkd_plugin.engine.adversarial_hook import AdversarialHook
from mmkd_plugin.engine.checkpoint_hook import WholeCheckpointHook
from mmkd_plugin.engine.finite_hook import FiniteHook
from mmkd_plugin.engine.flexible_runner import FlexibleDistillRunner
from mmkd_plugin.engine.runner import DistillRunner
from mmkd_plugin.engine.self_check import SelfCheckHook
from mmkd_plugin.engine.state_hook import DistillStateHook
from mmkd_plugin.engine.visualization_hook import DistillVisualizationHook

__all__ = [
    'AdversarialHook',
    'DistillRunner',
    'DistillStateHook',
    'DistillVisualizationHook',
    'FiniteHook',
    'FlexibleDistillRunner',
    'SelfCheckHook',
    'WholeCheckpointHook',
]
