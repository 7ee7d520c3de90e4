"""The teacher: built from whatever the user has, frozen, and run only as far as it is read."""

from __future__ import annotations

import contextlib
import copy
import os.path as osp
import re
from collections import OrderedDict
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Callable, NamedTuple

import torch
from mmengine.config import Config, ConfigDict
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.utils import get_installed_path
from torch import Tensor, nn

from mmkd_plugin.compat.checkpoint import load_checkpoint_file
from mmkd_plugin.compat.razor import BaseRecorder
from mmkd_plugin.errors import DistillError, nearest
from mmkd_plugin.probe.anatomy import auxiliary_heads, trunk_name
from mmkd_plugin.teachers.images import teacher_batch
from mmkd_plugin.utilities.rng import isolated_rng

RANDOM_WEIGHTS = 'random'
"""Value of ``teacher_ckpt`` with which a teacher without trained weights is accepted on purpose."""


class LoadedTeacher(NamedTuple):
    """A built teacher.

    Attributes:
        model: The teacher with its weights.
        report: One sentence on what was loaded.
        meta: ``meta`` of its checkpoint, empty without one.
    """

    model: nn.Module
    report: str
    meta: dict


class _EnoughRecorded(Exception):
    """Ends the teacher's forward pass once every record is there."""


class FrozenTeacher:
    """A model in evaluation mode, without gradient and outside the module tree.

    It is no ``nn.Module``, so that the algorithm that holds it does not list it among its parameters, checkpoints,
    averaged copies or distributed buckets.

    Args:
        teacher: The teacher as built.
        student_preprocessor: Preprocessor that made the batch; where the teacher's own normalises in another way,
            the batch is converted.
        scale: Size of the images that the teacher sees in those of the student.
        same_classes: Whether outputs are compared class by class, so that a teacher of other classes is refused.
    """

    def __init__(
        self, teacher: LoadedTeacher, student_preprocessor: nn.Module, scale: float = 1.0, same_classes: bool = False
    ) -> None:
        self.model = revert_sync_batchnorm(teacher.model)
        # Not in a chain: detectors that override train() return nothing from it.
        self.model.eval()
        self.model.requires_grad_(False)
        self.report = teacher.report
        self.meta = teacher.meta
        self.scale = scale
        self.same_classes = same_classes
        self._renormalise = _Renormalise.between(student_preprocessor, getattr(self.model, 'data_preprocessor', None))
        self._recorders: dict[str, BaseRecorder] = {}
        self._needed: dict[str, int] = {}

    def __deepcopy__(self, memo: dict) -> AbsentTeacher:
        """Copies of an algorithm, which averaging makes, have no teacher: it is neither doubled nor moved with them."""
        return AbsentTeacher()

    def apply_(self, function: Callable[[Tensor], Tensor]) -> None:
        """Follow the algorithm to another device or type."""
        self.model._apply(function)
        if self._renormalise is not None:
            self._renormalise._apply(function)

    def watch(self, recorders: dict[str, BaseRecorder]) -> None:
        """Let a forward pass end as soon as what is needed was recorded.

        An auxiliary head that is recorded is run as soon as its features exist.

        Args:
            recorders: This teacher's recorders by name, initialised.
        """
        self._recorders = recorders
        modules = dict(self.model.named_modules())
        sources = {recorder.source for recorder in recorders.values()}
        for source in sources:
            if source in modules:
                modules[source].register_forward_hook(self._stop_when_recorded)
        for path, head in auxiliary_heads(self.model).items():
            if any(f'{source}.'.startswith(f'{path}.') for source in sources):
                modules[trunk_name(self.model)].register_forward_hook(_run_on_features(head))

    def _stop_when_recorded(self, module: nn.Module, inputs: Any, outputs: Any) -> None:
        recorded = (len(self._recorders[name].data_buffer) >= count for name, count in self._needed.items())
        if self._needed and all(recorded):
            raise _EnoughRecorded

    @torch.no_grad()
    def run(self, batch_inputs: Tensor, data_samples: list | None, needed: dict[str, int]) -> None:
        """Fill the teacher's recorders; nothing is done where nothing is needed.

        Args:
            batch_inputs: The student's batch, ``(N, 3, H, W)``.
            data_samples: Its data samples.
            needed: How many records are read, by recorder; other teachers' recorders are passed over.
        """
        self._needed = {name: count for name, count in needed.items() if name in self._recorders}
        if not self._needed:
            return
        if self.scale != 1:
            batch_inputs, data_samples = teacher_batch(batch_inputs, data_samples, self.scale)
        if self._renormalise is not None:
            batch_inputs = self._renormalise(batch_inputs, data_samples)
        with contextlib.ExitStack() as stack:
            for name in self._needed:
                stack.enter_context(self._recorders[name])
            try:
                self.model(batch_inputs, data_samples, mode='tensor')
            except _EnoughRecorded:
                pass


class AbsentTeacher:
    """Stands where a copied algorithm has no teacher."""

    def apply_(self, function: Callable[[Tensor], Tensor]) -> None:
        """There is nothing to move."""

    def run(self, batch_inputs: Tensor, data_samples: list | None, needed: dict[str, int]) -> None:
        """Refuse to train a copy."""
        raise DistillError('A copy of a distillation algorithm has no teacher; train the original, or build another.')


def _run_on_features(head: nn.Module) -> Callable[[nn.Module, Any, Any], None]:
    """A hook for the trunk that runs an auxiliary head, which the model's own forward pass leaves out."""

    def hook(module: nn.Module, inputs: Any, outputs: Any) -> None:
        head(outputs)

    return hook


class _Renormalise(nn.Module):
    """Convert a batch from one mean, deviation and channel order to another.

    The batch keeps the student's augmentation; padding becomes the teacher's padding value.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, scale: Tensor, shift: Tensor, swap: bool, pad_value: float) -> None:
        super().__init__()
        self.register_buffer('scale', scale)
        self.register_buffer('shift', shift)
        self.swap = swap
        self.pad_value = pad_value

    @classmethod
    def between(cls, student: nn.Module | None, teacher: nn.Module | None) -> _Renormalise | None:
        """The conversion between two preprocessors, or None where they agree or one of them does not normalise at all.

        A config without a preprocessor gets MMEngine's plain one, which says nothing about the images a model
        expects; such a teacher sees the student's.
        """
        if student is None or teacher is None:
            return None
        if not hasattr(student, '_enable_normalize') or not hasattr(teacher, '_enable_normalize'):
            return None
        mean_s, std_s, swap_s = _normalisation(student)
        mean_t, std_t, swap_t = _normalisation(teacher)
        swap = swap_s != swap_t
        if not swap and torch.equal(mean_s, mean_t) and torch.equal(std_s, std_t):
            return None
        if swap:
            mean_s, std_s = mean_s.flip(0), std_s.flip(0)
        return cls(
            std_s / std_t,
            (mean_s - mean_t) / std_t,
            swap,
            float(getattr(teacher, 'pad_value', getattr(teacher, 'pad_val', 0))),
        )

    def forward(self, batch: Tensor, data_samples: list | None) -> Tensor:
        """Convert ``(N, 3, H, W)``."""
        batch = (batch.flip(1) if self.swap else batch) * self.scale + self.shift
        shapes = [sample.img_shape[:2] for sample in data_samples or [] if 'img_shape' in sample]
        if len(shapes) != len(batch):
            return batch
        height, width = batch.shape[-2:]
        limits = torch.tensor(shapes).to(batch.device, non_blocking=True)[:, :, None]
        rows = torch.arange(height, device=batch.device) < limits[:, 0]
        columns = torch.arange(width, device=batch.device) < limits[:, 1]
        inside = (rows[:, :, None] & columns[:, None, :])[:, None]
        return torch.where(inside, batch, batch.new_full((), self.pad_value))


def _normalisation(preprocessor: nn.Module) -> tuple[Tensor, Tensor, bool]:
    """Mean and deviation as ``(3, 1, 1)``, and whether channels are swapped from the file's order."""
    swap = bool(getattr(preprocessor, '_channel_conversion', getattr(preprocessor, 'channel_conversion', False)))
    if getattr(preprocessor, '_enable_normalize', False):
        mean, std = preprocessor.get_buffer('mean'), preprocessor.get_buffer('std')
        return mean.float().cpu(), std.float().cpu(), swap
    return torch.zeros(3, 1, 1), torch.ones(3, 1, 1), swap


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
            raise DistillError(
                f'The teacher config "{source}" cannot be read ({type(error).__name__}: {str(error).splitlines()[0]}); '
                'correct the file or name another.'
            ) from error
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
        installed = [known for known in MODULE2PACKAGE if find_spec(known) is not None]
        raise DistillError(f'"{name}" names a package that is not installed; {nearest(package, installed)}')
    return osp.join(get_installed_path(MODULE2PACKAGE[package]), '.mim', 'configs', path)


def other_configs(source: str, path: str) -> str:
    """Name the configs of a package that are closest to one that does not exist.

    Args:
        source: What the user wrote.
        path: The file that it would be.

    Returns:
        The end of an error's sentence.
    """
    if '::' not in source:
        return 'give the path of a config file or a zoo name such as "mmdet::retinanet/retinanet_r101_fpn_2x_coco.py".'
    package, name = source.split('::', 1)
    root = Path(path[: len(path) - len(name)])
    return nearest(source, (f'{package}::{file.relative_to(root).as_posix()}' for file in root.glob('*/*.py')))


def build_teacher(
    model: dict | nn.Module, checkpoint: str | None = None, trust_checkpoint: bool = False
) -> LoadedTeacher:
    """Build a teacher and load its weights.

    Args:
        model: Its config, or the built model.
        checkpoint: Path or address of its weights, or ``package::path`` for a file beside a package's configs; None for
            a model that carries them already, ``'random'`` for untrained weights on purpose.
        trust_checkpoint: Whether the file may run code of its own while it is read.

    Returns:
        The model, what was loaded, and the checkpoint's meta information.

    Raises:
        DistillError: If the checkpoint is missing, refused, or covers only part of the teacher.
    """
    with isolated_rng():
        if isinstance(model, nn.Module):
            teacher = model
        else:
            try:
                teacher = ROOT_MODELS.build(_without_pretrained(model))
            except Exception as error:
                raise DistillError(
                    f'The teacher of type "{model.get("type")}" cannot be built ({str(error).splitlines()[0]}); '
                    'correct its config or choose another teacher.'
                ) from error
            if checkpoint == RANDOM_WEIGHTS:
                teacher.init_weights()
    if checkpoint is None or checkpoint == RANDOM_WEIGHTS:
        return LoadedTeacher(teacher, 'teacher weights: untrained' if checkpoint else 'teacher weights: as built', {})
    loaded = load_checkpoint_file(local_file(checkpoint), trust=trust_checkpoint)
    meta = loaded.get('meta', {}) if isinstance(loaded, dict) else {}
    return LoadedTeacher(teacher, _load_all(teacher, loaded, checkpoint), meta)


def _without_pretrained(model: dict) -> dict:
    """Drop pretrained backbone weights: the teacher's checkpoint replaces them."""
    model = copy.deepcopy(model)

    def strip(node: Any) -> None:
        if isinstance(node, dict):
            init = node.get('init_cfg')
            if isinstance(init, dict) and init.get('type') == 'Pretrained':
                node['init_cfg'] = None
            if isinstance(node.get('pretrained'), str):
                node['pretrained'] = None
            for value in node.values():
                strip(value)
        elif isinstance(node, (list, tuple)):
            for value in node:
                strip(value)

    strip(model)
    return model


def _load_all(teacher: nn.Module, checkpoint: dict, name: str) -> str:
    """Load every weight of the teacher, or say what the checkpoint lacks."""
    stored = checkpoint.get('state_dict', checkpoint)
    state = OrderedDict((re.sub(r'^(module|architecture)\.', '', key), value) for key, value in stored.items())
    own = teacher.state_dict()
    required = [key for key in own if not key.endswith('num_batches_tracked')]
    differing = [key for key in required if key in state and state[key].shape != own[key].shape]
    fitting = OrderedDict((key, value) for key, value in state.items() if key not in differing)
    # The version of the modules that wrote the file, by which they translate keys of former names.
    fitting._metadata = getattr(stored, '_metadata', None)  # type: ignore[attr-defined]
    result = teacher.load_state_dict(fitting, strict=False)
    missing = [key for key in result.missing_keys if key in required]
    if missing:
        first = (
            f'"{differing[0]}" has the shape {tuple(state[differing[0]].shape)} in the file and '
            f'{tuple(own[differing[0]].shape)} in the model'
            if differing
            else f'"{missing[0]}" is missing'
        )
        raise DistillError(
            f'The teacher checkpoint "{name}" fills {len(required) - len(missing)} of {len(required)} entries of '
            f'{type(teacher).__name__} ({first}); give the checkpoint that was trained with this teacher config.'
        )
    unused = len(result.unexpected_keys)
    report = f'teacher weights: {len(required)} of {len(required)} entries loaded from {name}'
    return report + (f', {unused} entries of the file not used' if unused else '')
