"""What the model zoos say of their configs."""

from __future__ import annotations

from pathlib import Path

import yaml
from mmengine.utils import get_installed_path


def zoo_weights(name: str) -> str:
    """Address of the weights that a zoo lists for one of its configs.

    Args:
        name: ``mmdet::...`` or ``mmseg::...``.
    """
    package, config = name.split('::')
    folder = Path(get_installed_path(package), '.mim/configs', config).parent
    (metafile,) = folder.glob('metafile.y*ml')
    (entry,) = [part for part in metafile.read_text().split('Name: ') if f'Config: configs/{config}\n' in part]
    return yaml.safe_load(entry[entry.index('Weights: ') :].splitlines()[0])['Weights']
