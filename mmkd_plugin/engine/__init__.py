"""The runner and the hooks of a distilled run."""

from mmkd_plugin.engine.adversarial_hook import AdversarialHook
from mmkd_plugin.engine.checkpoint_hook import WholeCheckpointHook
from mmkd_plugin.engine.finite_hook import FiniteHook
from mmkd_plugin.engine.runner import DistillRunner
from mmkd_plugin.engine.self_check import SelfCheckHook
from mmkd_plugin.engine.state_hook import DistillStateHook

__all__ = ['AdversarialHook', 'DistillRunner', 'DistillStateHook', 'FiniteHook', 'SelfCheckHook', 'WholeCheckpointHook']
