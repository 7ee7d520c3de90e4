"""MMRazor's quantization part, which asks torch for names that torch 2 dropped and which distillation never needs."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os.path as osp
import sys
from types import ModuleType

from mmkd_plugin.errors import DistillError

_PACKAGE = 'mmrazor.structures.quantization.backend_config'


def require_mmrazor() -> None:
    """Check that MMRazor can be imported at all.

    Raises:
        DistillError: If MMRazor or a package that it imports without declaring it is not installed.
    """
    for name, user in (('mmrazor', 'Distillation needs MMRazor'), ('joblib', 'MMRazor needs joblib')):
        if name not in sys.modules and importlib.util.find_spec(name) is None:
            raise DistillError(f'{user}, which is not installed; run "pip install {name}".')


def stub_quantization() -> None:
    """Let ``import mmrazor.models`` succeed where its quantization part cannot be imported.

    The part's table of backends is replaced by an empty one, as MMRazor itself does on a torch that is too old for
    quantization. An MMRazor whose imports torch satisfies, or whose part is imported already, is left alone.
    """
    if _PACKAGE not in sys.modules and missing_names():
        stub = ModuleType(_PACKAGE, 'Empty stand-in: this torch lacks what quantization needs.')
        stub.__dict__.update(BackendConfigs=dict.fromkeys(('academic', 'native', 'tensorrt', 'openvino')), __path__=[])
        sys.modules[_PACKAGE] = stub


def missing_names() -> list[str]:
    """The names that MMRazor's quantization part imports from torch and that this torch lacks.

    The source is read, not imported: a failed import would leave half of MMRazor behind.

    Returns:
        Dotted names; empty where the part can be imported or does not exist.
    """
    spec = importlib.util.find_spec('mmrazor')
    if spec is None or spec.origin is None:
        return []
    path = osp.join(osp.dirname(spec.origin), *_PACKAGE.split('.')[1:], 'common_operator_config_utils.py')
    if not osp.isfile(path):
        return []
    with open(path, encoding='utf-8') as file:
        tree = ast.parse(file.read())
    missing = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            missing += [alias.name for alias in node.names if _is_torch(alias.name) and not _exists(alias.name)]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and _is_torch(node.module or ''):
            missing += [
                f'{node.module}.{alias.name}' for alias in node.names if not _exists(str(node.module), alias.name)
            ]
    return missing


def _is_torch(module: str) -> bool:
    return module.split('.')[0] == 'torch'


def _exists(module: str, name: str | None = None) -> bool:
    """Whether a module, or a name in it, can be imported."""
    try:
        found = importlib.import_module(module)
    except ImportError:
        return False
    return name is None or hasattr(found, name)
