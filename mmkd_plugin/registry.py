"""Registries of the plugin: children of MMEngine's, reached from any scope as ``mmkd_plugin.Name``."""

from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import RUNNERS as MMENGINE_RUNNERS
from mmengine.registry import TASK_UTILS as MMENGINE_TASK_UTILS
from mmengine.registry import Registry

from mmkd_plugin.compat import apply as apply_compat

apply_compat()

_SCOPE = 'mmkd_plugin'

MODELS = Registry(
    'model',
    scope=_SCOPE,
    parent=MMENGINE_MODELS,
    locations=[
        'mmkd_plugin.algorithms',
        'mmkd_plugin.connectors',
        'mmkd_plugin.distillers',
        'mmkd_plugin.losses',
    ],
)
TASK_UTILS = Registry('task util', scope=_SCOPE, parent=MMENGINE_TASK_UTILS, locations=['mmkd_plugin.recorders'])
HOOKS = Registry('hook', scope=_SCOPE, parent=MMENGINE_HOOKS, locations=['mmkd_plugin.engine'])
RUNNERS = Registry('runner', scope=_SCOPE, parent=MMENGINE_RUNNERS, locations=['mmkd_plugin.engine'])
DATASETS = Registry('dataset', scope=_SCOPE, parent=MMENGINE_DATASETS, locations=['mmkd_plugin.datasets'])

__all__ = ['DATASETS', 'HOOKS', 'MODELS', 'RUNNERS', 'TASK_UTILS']
