"""Registries of the plugin: children of MMEngine's, reached from any scope as ``mmkd_plugin.Name``."""

from __future__ import annotations

import mmengine.registry as mmengine_registry
from mmengine.registry import DefaultScope, Registry

from mmkd_plugin import compat

compat.apply()

_SCOPE = 'mmkd_plugin'
_ROOT_SCOPE = 'mmengine'
_LOCATIONS = {
    'MODELS': [
        f'{_SCOPE}.{folder}' for folder in ('algorithms', 'connectors', 'distillers', 'methods', 'models', 'teachers')
    ],
    'TASK_UTILS': [f'{_SCOPE}.recorders'],
    'HOOKS': [f'{_SCOPE}.engine'],
    'RUNNERS': [f'{_SCOPE}.engine'],
    'DATASETS': [f'{_SCOPE}.datasets'],
    'DATA_SAMPLERS': [f'{_SCOPE}.datasets'],
    'TRANSFORMS': [f'{_SCOPE}.datasets'],
}


class PluginRegistry(Registry):
    """Finds the plugin's own parts first, and everything else where the config's default scope finds it.

    MMEngine gives all that a ``mmkd_plugin::`` base holds the scope ``mmkd_plugin``; such a base still names the parts
    of MMDetection or MMSegmentation as they are called there.
    """

    def get(self, key: str) -> type | None:
        """Look a name up; see :meth:`mmengine.registry.Registry.get`."""
        self.import_from_location()
        scope, name = self.split_scope_key(key)
        if scope is None and name not in self.module_dict:
            # Switching imports that scope's registries where nothing has done so yet.
            with self.switch_scope_and_registry(_default_scope()) as home:
                if home is not self:
                    return home.get(key)
        return super().get(key)


def _default_scope() -> str:
    """The scope of the run, below those that are set for the length of a look-up."""
    names = [instance.scope_name for instance in DefaultScope._instance_dict.values()]
    return next((name for name in reversed(names) if name != _SCOPE), _ROOT_SCOPE)


# A registry without a location would make MMEngine look for a "utils" package and warn.
_registries = {
    name: PluginRegistry(parent.name, scope=_SCOPE, parent=parent, locations=_LOCATIONS.get(name, [__name__]))
    for name, parent in vars(mmengine_registry).items()
    if isinstance(parent, Registry)
}
DATASETS = _registries['DATASETS']
DATA_SAMPLERS = _registries['DATA_SAMPLERS']
HOOKS = _registries['HOOKS']
MODELS = _registries['MODELS']
OPTIM_WRAPPERS = _registries['OPTIM_WRAPPERS']
RUNNERS = _registries['RUNNERS']
TASK_UTILS = _registries['TASK_UTILS']
TRANSFORMS = _registries['TRANSFORMS']

METHODS = Registry('distillation method', scope=_SCOPE, locations=[f'{_SCOPE}.methods'])
"""What a ``distill`` block can name as the ``type`` of a method."""

__all__ = [
    'DATASETS',
    'DATA_SAMPLERS',
    'HOOKS',
    'METHODS',
    'MODELS',
    'OPTIM_WRAPPERS',
    'RUNNERS',
    'TASK_UTILS',
    'TRANSFORMS',
]
