"""What is measured: a config, on which batches, in which precision and where."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import DefaultScope
from torch import nn

from mmkd_plugin.block import DistillBlock, expand_config
from mmkd_plugin.compat.unread_block import refuse_misspelt_block
from mmkd_plugin.errors import DistillError
from mmkd_plugin.registry import OPTIM_WRAPPERS
from mmkd_plugin.study.check import require_training, trial_config
from mmkd_plugin.study.one_step import offline, one_step_config, teachers_of
from mmkd_plugin.teachers import local_file, model_config
from mmkd_plugin.teachers.weights import RANDOM_WEIGHTS

SIZES = {'mmdet': (320, 320), 'mmseg': (256, 256)}
"""Height and width of the images where none is asked for, for the packages whose images can be made up."""

BOXES = 7
"""Boxes of an image where no other number is asked for; COCO has 7.3 on average."""

_LONG = 10**6
"""Iterations of a run that is not meant to end by itself."""

_SLOW = 1e-6
"""Learning rate: nothing that a step costs depends on it, and students that hardly move stay equal."""

_CUDA = re.compile(r'cuda(:\d+)?$')


@dataclasses.dataclass(frozen=True)
class Case:
    """What each config is measured with.

    Attributes:
        size: Height and width of the images; by default those of :data:`SIZES`.
        batch: Images of a batch; with the config's own data None stands for the batch size of the config.
        boxes: Boxes of an image of a detector; :data:`BOXES` by default.
        amp: Whether half precision is used: float16 on CUDA, bfloat16 elsewhere.
        device: ``'cpu'``, ``'cuda'`` or ``'cuda:<index>'``.
        data: Whether the batches are the first ones of the config's own data.
    """

    size: tuple[int, int] | None = None
    batch: int | None = None
    boxes: int | None = None
    amp: bool = False
    device: str = 'cpu'
    data: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be measured.

        Raises:
            DistillError: Naming the option.
        """
        if self.data and (self.size is not None or self.boxes is not None):
            what = 'size' if self.size is not None else 'boxes'
            raise DistillError(
                f"--data takes the images and boxes of the config's own data, so --{what} has no place beside it; "
                'leave one of the two out.'
            )
        if self.device != 'cpu':
            _require_cuda(self.device)

    @property
    def precision(self) -> str:
        """What the models compute in."""
        return ('bfloat16' if self.device == 'cpu' else 'float16') if self.amp else 'float32'

    def described(self, cfg: Config) -> dict[str, Any]:
        """The batches, precision and device as they stand in the results of a config."""
        # Which of several GPUs of one kind it is says nothing.
        where = dict(precision=self.precision, device=self.device.partition(':')[0])
        if self.data:
            return dict(data='own', batch=self.batch or cfg.train_dataloader.get('batch_size', 1), **where)
        package = cfg.default_scope
        found: dict[str, Any] = dict(size=list(self.size or SIZES[package]), batch=self.batch or 2)
        if package == 'mmdet':
            found['boxes'] = BOXES if self.boxes is None else self.boxes
        return dict(found, **where)


def _require_cuda(device: str) -> None:
    if not _CUDA.match(device):
        raise DistillError(f'--device is "{device}"; give cpu, cuda, or cuda:0 for the first of several GPUs.')
    index = int(device.partition(':')[2] or 0)
    if not torch.cuda.is_available():
        raise DistillError('--device asks for a GPU, but torch finds none here; leave it out, or give cpu.')
    if index >= torch.cuda.device_count():
        raise DistillError(f'--device is "{device}", but there are {torch.cuda.device_count()} GPUs, counted from 0.')


def require_measurable(cfg: Config, case: Case) -> None:
    """Refuse a config of which no cost can be measured.

    Raises:
        DistillError: If it distils nothing, or asks for batches that cannot be made.
    """
    refuse_misspelt_block(cfg)
    if cfg.get('distill') is None:
        raise DistillError(
            'The config has no distill block, so there is no cost of distillation to measure; inherit a recipe such '
            'as "mmkd_plugin::_base_/fgd/one_stage.py".'
        )
    if cfg.get('model') is None:
        raise DistillError('The config has no model, so there is no student; give the config of a whole training.')
    if case.data:
        require_training(cfg)
    elif cfg.get('default_scope') not in SIZES:
        raise DistillError(
            f'The default_scope of the config is {cfg.get("default_scope")!r}, for which no images can be made up; set '
            'it to "mmdet" or "mmseg", or give --data to take those of the config.'
        )
    if case.boxes is not None and cfg.default_scope == 'mmseg':
        raise DistillError('--boxes is for detectors, and the config is that of a segmentor; leave it out.')
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        block = DistillBlock.parse(cfg.distill)
    if not block.methods:
        raise DistillError('Every method of the distill block has weight 0; give one a weight.')
    block.require_teacher()


def expanded(cfg: Config, case: Case, folder: Path) -> Config:
    """The run that is measured, with ``DistillAlgorithm`` as its model.

    Every method has its full weight from the first step on. Nothing is downloaded: a teacher whose weights are no file
    on this machine, and the student, start from random ones.

    Args:
        cfg: The config of a training.
        case: What it is measured with.
        folder: Folder of the run.

    Returns:
        The config.
    """
    cfg = copy.deepcopy(cfg)
    for teacher in teachers_of(cfg.distill):
        name = teacher.get('teacher_ckpt')
        if name is None or not Path(local_file(name)).is_file():
            teacher['teacher_ckpt'] = RANDOM_WEIGHTS
    # A look at the first step, which is none of those that are timed.
    cfg.distill.self_check = False
    run = _own_data(cfg, case, folder) if case.data else _made_up(cfg, case, folder)
    run.default_hooks = {**run.default_hooks, 'logger': dict(type='LoggerHook', interval=_LONG)}
    run.randomness = dict(seed=0)
    run.optim_wrapper.optimizer.lr = _SLOW
    if case.amp:
        mixed = dict(type='AmpOptimWrapper', dtype='float16', loss_scale='dynamic')
        run.optim_wrapper.update(dict(type='mmkd_plugin.HalfOptimWrapper') if case.device == 'cpu' else mixed)
    run = expand_config(run)
    run.model.distiller.pop('schedules', None)
    return run


def _made_up(cfg: Config, case: Case, folder: Path) -> Config:
    """The run on images of noise."""
    height, width = case.size or SIZES[cfg.default_scope]
    run = one_step_config(cfg, cfg.default_scope, height if height == width else (height, width), folder)
    loader = run.train_dataloader
    loader.batch_size = case.batch or 2
    # Two batches, which the steps take in turns.
    loader.dataset.update(length=2 * loader.batch_size, one_size=True)
    if cfg.default_scope == 'mmdet':
        loader.dataset.objects = BOXES if case.boxes is None else case.boxes
    run.train_cfg.update(max_iters=_LONG, val_interval=_LONG + 1)
    return run


def _own_data(cfg: Config, case: Case, folder: Path) -> Config:
    """The run on the config's own data."""
    run = trial_config(cfg, folder)
    run.model = offline(run.model)
    for teacher in teachers_of(run.distill):
        if teacher.get('teacher') is not None:
            teacher['teacher'] = offline(model_config(teacher['teacher']))
    run.load_from = None
    run.custom_hooks = []
    run.optim_wrapper.update(type='OptimWrapper')
    for mixed in ('loss_scale', 'dtype', 'use_fp16'):
        run.optim_wrapper.pop(mixed, None)
    run.train_cfg = dict(type='IterBasedTrainLoop', max_iters=_LONG, val_interval=_LONG + 1)
    run.param_scheduler = None
    if case.batch is not None:
        run.train_dataloader.batch_size = case.batch
    return run


@OPTIM_WRAPPERS.register_module()
class HalfOptimWrapper(OptimWrapper):
    """MMEngine's wrapper with bfloat16 in the forward pass, without a GPU, on which alone MMEngine's own mixes."""

    @contextlib.contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Mix bfloat16 in."""
        with super().optim_context(model), torch.autocast('cpu', dtype=torch.bfloat16):
            yield


@contextlib.contextmanager
def on_device(device: str) -> Iterator[None]:
    """Let MMEngine put models on a device, where it would take the first GPU by itself."""
    from mmengine.device import utils

    before = utils.DEVICE
    utils.DEVICE = device.partition(':')[0]
    index = torch.cuda.current_device() if device != 'cpu' else 0
    if ':' in device:
        torch.cuda.set_device(int(device.partition(':')[2]))
    try:
        yield
    finally:
        utils.DEVICE = before
        if device != 'cpu':
            torch.cuda.set_device(index)


def digest(cfg: Config) -> str:
    """A hash of what a config says."""
    return hashlib.sha256(repr(cfg.to_dict()).encode()).hexdigest()[:16]
