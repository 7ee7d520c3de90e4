"""Where a teacher's config comes from: a zoo, a file, or the config itself."""

from __future__ import annotations

import copy
import os.path as osp
import re
from importlib.util import find_spec
from pathlib import Path

from mmengine.config import Config, ConfigDict
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.utils import get_installed_path

from mmkd_plugin.errors import DistillError, nearest


def model_config(source: str | dict | Config) -> ConfigDict:
    """Find the model in whatever describes a teacher.

    Args:
        source: A zoo name (``mmdet::retinanet/...py``), the path of a config file, or a config: a whole one with a
            ``model`` or the model alone.

    Returns:
        The model's config; its scope is that of the config it came from.

    Raises:
        DistillError: If there is no such file or no model in it.
    """
    if isinstance(source, str):
        path = local_file(source) if '::' in source else osp.expanduser(source)
        if not osp.isfile(path):
            raise DistillError(f'The teacher config "{source}" does not exist; {other_configs(source, path)}')
        try:
            config = Config.fromfile(path)
        except Exception as error:
            raise DistillError(unreadable(f'The teacher config "{source}"', error)) from error
    else:
        config = source
    model = copy.deepcopy(config.get('model', config if 'type' in config else None))
    if model is None:
        raise DistillError('The teacher config holds no "model"; give a config that describes a detector or segmentor.')
    model = model if isinstance(model, ConfigDict) else ConfigDict(model)
    if str(model.get('type')).endswith('DistillAlgorithm'):
        model = model.architecture
    if '_scope_' not in model and config.get('default_scope') is not None:
        model['_scope_'] = config['default_scope']
    return model


def local_file(name: str) -> str:
    """Resolve ``package::path``, a file that lies beside an installed package's configs; other names stay."""
    if '::' not in name or '://' in name:
        return name
    package, path = name.split('::', 1)
    # MMEngine's own look-up would install a package that is missing.
    if package not in MODULE2PACKAGE or find_spec(package) is None:
        raise DistillError(f'"{name}" names a package that is not installed; {nearest(package, _packages())}')
    return osp.join(get_installed_path(MODULE2PACKAGE[package]), '.mim', 'configs', path)


def other_configs(source: str, path: str) -> str:
    """Name the configs of a package, or of a folder, that are closest to one that does not exist.

    Args:
        source: What the user wrote.
        path: The file that it would be.

    Returns:
        The end of an error's sentence.
    """
    if '::' in source:
        package, name = source.split('::', 1)
        return _nearest_of(package, Path(path[: len(path) - len(name)]), source)
    folder = osp.dirname(source)
    close = nearest(source, (osp.join(folder, file.name) for file in Path(path).parent.glob('*.py')))
    if 'did you mean' in close:
        return close
    return 'give the path of a .py config, or a zoo name such as "mmdet::retinanet/retinanet_r50_fpn_1x_coco.py".'


def unreadable(name: str, error: Exception) -> str:
    """Why a config cannot be read, with the nearest file where one that it builds on is not there.

    Args:
        name: What the user gave, with what it is: ``The config "a.py"``.
        error: What MMEngine raised.

    Returns:
        The sentence.
    """
    reason = (str(error).strip() or 'no reason given').splitlines()[0].rstrip('.')
    fix = 'correct the file or name another.'
    unknown = re.search(r'not support to load (\w+) config', reason)
    if unknown:
        return f'{name} builds on "{unknown[1]}::", a package that is not known; {nearest(unknown[1], _packages())}'
    missing = next((path for path in re.findall(r'[^\s"\']+\.py', reason) if not Path(path).is_file()), None)
    if missing is not None and type(error).__name__ in ('FileNotFoundError', 'ConfigParsingError'):
        root, separator, rest = missing.partition('/.mim/configs/')
        if separator:
            package = Path(root).name
            base = f'{package}::{rest}'
            fix = _nearest_of(package, Path(root, '.mim/configs'), base)
        else:
            base = osp.normpath(missing)
            fix = other_configs(base, base)
        return f'{name} builds on "{base}", which does not exist; {fix}'
    return f'{name} cannot be read ({type(error).__name__}: {reason}); {fix}'


def _packages() -> list[str]:
    """The installed packages whose configs have zoo names."""
    return [known for known in MODULE2PACKAGE if find_spec(known) is not None]


def _nearest_of(package: str, root: Path, wanted: str) -> str:
    return nearest(wanted, (f'{package}::{file.relative_to(root).as_posix()}' for file in root.rglob('*.py')))
