"""The config of a compressed model, and the files that it is written to."""

from __future__ import annotations

import copy
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import nn

from mmkd_plugin.compat.checkpoint import load_model_file
from mmkd_plugin.errors import DistillError
from mmkd_plugin.models.factored import Ranks
from mmkd_plugin.teachers import local_file, model_config
from mmkd_plugin.utilities.files import output_file

FACTORED = 'mmkd_plugin.Factored'
_IMAGE = (800, 1333)


def plain_config(config: Config) -> Config:
    """The config of the student alone, without what a distill block brings.

    Raises:
        DistillError: If there is no model in it.
    """
    if config.get('model') is None:
        raise DistillError('The config holds no "model"; give a config that describes a detector or segmentor.')
    plain = copy.deepcopy(config)
    scope = plain.get('default_scope', 'mmdet')
    plain.default_scope = scope
    plain.model = model_config(plain)
    if plain.model.get('_scope_') == scope:
        plain.model.pop('_scope_')
    for key in ('distill', 'launcher', 'work_dir'):
        plain.pop(key, None)
    if str(plain.get('runner_type')).endswith('DistillRunner'):
        plain.pop('runner_type')
    return plain


def factored_config(config: Config, model: nn.Module, ranks: Mapping[str, Ranks]) -> Config:
    """The config that builds a model with some layers factored.

    Args:
        config: Of the model as it is.
        model: The model.
        ranks: By the path of the layer.

    Returns:
        A copy in which the parts that hold these layers are ``mmkd_plugin.Factored``.
    """
    written = copy.deepcopy(config)
    for path, rank in ranks.items():
        part, depth = _part(written.model, model, path)
        if part['type'] != FACTORED:
            part['of'] = part['type']
            part['type'] = FACTORED
            part['ranks'] = {}
        part['ranks']['.'.join(path.split('.')[depth:])] = rank
        # The weights of the whole model come from a file; those of the part as it was do not fit.
        if (part.get('init_cfg') or {}) and _is_pretrained(part['init_cfg']):
            part['init_cfg'] = None
        if part.get('pretrained') is not None:
            part['pretrained'] = None
    if written.model.get('pretrained') is not None:
        written.model['pretrained'] = None
    return written


def image_size(config: Config) -> tuple[int, int]:
    """Height and width that the test pipeline resizes images to."""
    dataset = (config.get('test_dataloader') or {}).get('dataset') or {}
    while 'pipeline' not in dataset and isinstance(dataset.get('dataset'), dict):
        dataset = dataset['dataset']
    for step in dataset.get('pipeline') or []:
        scale = step.get('scale')
        if str(step.get('type')).endswith('Resize') and isinstance(scale, (tuple, list)) and len(scale) == 2:
            return int(scale[1]), int(scale[0])
    return _IMAGE


def write(config: Config, model: nn.Module, folder: Path, name: str, source: str) -> tuple[Path, Path]:
    """Write the config and the weights of a compressed model.

    Args:
        config: Builds it.
        model: With its weights.
        folder: Made where there is none.
        name: Of both files, without their endings.
        source: Checkpoint of the original, whose class names are kept.

    Returns:
        Both files; the config starts from the weights.

    Raises:
        DistillError: If they cannot be written, or are the original itself.
    """
    files = folder / f'{name}.py', folder / f'{name}.pth'
    written = copy.deepcopy(config)
    written.load_from = str(files[1])
    written.resume = False
    meta = load_model_file(local_file(source)).get('meta')
    names = {key: meta[key] for key in ('dataset_meta',) if key in meta} if isinstance(meta, dict) else {}
    # By way of memory, as torch has errors of its own for a disk that is full.
    content = io.BytesIO()
    torch.save(dict(meta=names, state_dict=model.state_dict()), content)
    with output_file(files[1]) as temporary:
        temporary.write_bytes(content.getbuffer())
    with output_file(files[0]) as temporary:
        temporary.write_text(written.pretty_text, encoding='utf-8')
    return files


def _part(config: dict, model: nn.Module, path: str) -> tuple[dict, int]:
    """The innermost part of a model's config that builds a layer, and how much of the path leads to it."""
    names = path.split('.')
    node: Any = config
    found, depth = config, 0
    for index, name in enumerate(names, 1):
        if isinstance(node, dict):
            node = node.get(name)
        elif isinstance(node, (list, tuple)) and name.isdigit() and int(name) < len(node):
            node = node[int(name)]
        else:
            break
        if isinstance(node, dict) and _builds(node, model.get_submodule('.'.join(names[:index]))):
            found, depth = node, index
    return found, depth


def _builds(part: dict, module: nn.Module) -> bool:
    kind = part.get('of') if part.get('type') == FACTORED else part.get('type')
    name = kind if isinstance(kind, str) else getattr(kind, '__name__', '')
    return name.rpartition('.')[2] == type(module).__name__


def _is_pretrained(init: Any) -> bool:
    return any(str(item.get('type')) == 'Pretrained' for item in (init if isinstance(init, (list, tuple)) else [init]))
