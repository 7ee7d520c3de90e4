"""Errors in one sentence, and what a machine or an environment lacks in a plain one."""

from __future__ import annotations

import importlib
import re
import traceback
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import torch

from mmkd_plugin.compat.remedies import PROJECTS
from mmkd_plugin.utilities.text import sentence

_PACKAGES = {**PROJECTS, 'ldm': 'latent-diffusion'}
"""Names that pip knows, by those that Python imports, where they differ."""

_LACKS = {
    r'(\w+?)(?:_forward)?_impl: implementation for device cpu': 'needs a GPU: its operator {0} has no CPU version',
    r'Torch not compiled with CUDA|Found no NVIDIA driver|No CUDA GPUs': 'needs a GPU',
    r"couldn't connect to|file on the Hub|is not a local folder|URLError": 'needs weights that cannot be fetched here',
    r'Please train `detector` and `reid` models firstly': 'is put together of models that are trained by themselves',
    r"can't allocate memory|Cannot allocate memory": 'needs more memory than one config may take',
}
"""What a message that contains a pattern says."""

_ASKS = re.compile(r'To use (VPD)|(?:mim|pip) install (?!-|openmim)([\w-]+)|^(\w+) is not installed')
"""How models ask for a package."""


def lack(error: BaseException) -> str:
    """The package or the device that a stock model lacks, or else :func:`sentence`.

    Args:
        error: What building or training it raised.
    """
    links = list(_chain(error))
    for link in reversed(links):
        if isinstance(link, ModuleNotFoundError) and link.name:
            return _needs(link.name)
    for link in links:
        text = ' '.join(str(link).split())
        for pattern, said in _LACKS.items():
            found = re.search(pattern, text)
            if found:
                return said.format(*found.groups())
        asked = _ASKS.search(text)
        if asked:
            name = next(group for group in asked.groups() if group)
            return _needs('ldm' if name == 'VPD' else name)
    return _own_fault(links[0]) or sentence(error)


def _own_fault(error: BaseException) -> str:
    """That the model's own code is at fault, and where; nothing for an error that arose elsewhere."""
    files = [Path(frame.filename).as_posix() for frame in traceback.extract_tb(error.__traceback__)]
    own = [name for name in files if re.search(r'/site-packages/(mmdet|mmseg)/models/', name)]
    if not isinstance(error, RuntimeError) or not own:
        return ''
    return f'fails in its own code, {own[-1].rpartition("/site-packages/")[2]}: {sentence(error)}'


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what led to it, the innermost one last."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _needs(module: str) -> str:
    """That a package is needed, or what keeps one that is there from being imported."""
    module = module.partition('.')[0]
    if find_spec(module) is not None:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            return f'needs the package {_PACKAGES.get(module, module)}: it {_needs(error.name or module)}'
        except Exception as error:
            return f'needs the package {module}, which cannot be imported: {sentence(error)}'
    built = ', which has no build for this torch' if module == 'torchvision' and torch.version.cuda is None else ''
    return f'needs the package {_PACKAGES.get(module, module)}{built}'
