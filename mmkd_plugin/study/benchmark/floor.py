"""The least that a distilled step can cost: the student's step, and the teacher run as far as it is read."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from mmengine.config import ConfigDict
from mmengine.model import BaseModel, revert_sync_batchnorm
from mmengine.registry import MODELS as ROOT_MODELS
from torch import Tensor, nn

from mmkd_plugin.compat.razor import BaseRecorder
from mmkd_plugin.distillers import Distiller
from mmkd_plugin.probe.anatomy import auxiliary_heads, trunk_name
from mmkd_plugin.teachers import build_teacher
from mmkd_plugin.teachers.images import Renormalise, teacher_batch
from mmkd_plugin.utilities.clips import detector_of, key_frames


class _Read(Exception):
    """Ends the teacher's forward pass behind the last module that is read."""


class PlainTeacher(nn.Module):
    """A teacher as one would run it first: in evaluation mode, without gradient, to the last module that is read.

    It has none of what :class:`~mmkd_plugin.teachers.FrozenTeacher` does to be cheaper, so that what this saves shows.

    Args:
        model: The teacher.
        recorders: What is read of it, by name, initialised.
        counts: How many records are read, by recorder.
        student_preprocessor: Made the batch; where the teacher's normalises in another way, the batch is converted.
        scale: Size of the teacher's images in the student's.
    """

    def __init__(
        self,
        model: BaseModel,
        recorders: dict[str, BaseRecorder],
        counts: dict[str, int],
        student_preprocessor: nn.Module,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.model = revert_sync_batchnorm(model)
        self.model.requires_grad_(False)
        self.scale = scale
        self.renormalise = Renormalise.between(student_preprocessor, getattr(model, 'data_preprocessor', None))
        self._recorders = [(recorders[name], count) for name, count in counts.items()]
        self._runs = False
        modules = dict(self.model.named_modules())
        sources = {recorder.source for recorder, _ in self._recorders}
        for source in sources & set(modules):
            modules[source].register_forward_hook(self._stop)
        for path, head in auxiliary_heads(self.model).items():
            if any(f'{source}.'.startswith(f'{path}.') for source in sources):
                # Only training calls it.
                modules[trunk_name(self.model)].register_forward_hook(_on_features(head))

    def train(self, mode: bool = True) -> PlainTeacher:
        """Stay in evaluation mode."""
        super().train(False)
        return self

    @torch.no_grad()
    def forward(self, batch_inputs: Tensor, data_samples: list | None) -> None:
        """Run the teacher."""
        batch_inputs, data_samples = key_frames(batch_inputs, data_samples)
        if self.scale != 1:
            batch_inputs, data_samples = teacher_batch(batch_inputs, data_samples, self.scale)
        if self.renormalise is not None:
            batch_inputs = self.renormalise(batch_inputs, data_samples)
        with contextlib.ExitStack() as stack:
            for recorder, _ in self._recorders:
                stack.enter_context(recorder)
            self._runs = True
            with contextlib.suppress(_Read):
                detector_of(self.model)(batch_inputs, data_samples, mode='tensor')
            self._runs = False

    def release(self) -> None:
        """Drop what was read."""
        for recorder, _ in self._recorders:
            recorder.reset_data_buffer()

    def _stop(self, module: nn.Module, inputs: Any, outputs: Any) -> None:
        if self._runs and all(len(recorder.data_buffer) >= count for recorder, count in self._recorders):
            raise _Read


class FloorAlgorithm(BaseModel):
    """The student's own step, and the teachers' forward passes beside it; nothing is compared.

    What the heads of a teacher say about the RoIs that the student has sampled is part of it. Where nothing of the
    student is needed, the teachers run first, while the student holds nothing for its backward pass, and what is read
    of them is kept until its forward pass is done.

    Args:
        architecture: The student.
        model: Config of the ``DistillAlgorithm`` whose floor this is.
    """

    def __init__(self, architecture: BaseModel, model: ConfigDict) -> None:
        super().__init__(data_preprocessor=architecture.data_preprocessor)
        self.architecture = architecture
        distiller: Distiller = ROOT_MODELS.build(model.distiller)
        distiller.prepare_from_student(architecture)
        built = {
            name: build_teacher(
                options.teacher,
                options.get('teacher_ckpt'),
                options.get('trust_checkpoint', False),
                options.get('teacher_prefix'),
            ).model
            for name, options in model.teachers.items()
        }
        distiller.prepare_from_teachers(built)
        counts = distiller.teacher_records_needed()
        self.teachers = nn.ModuleDict()
        for name, teacher in built.items():
            recorders = distiller.recorders_of(name)
            needed = {key: counts[key] for key in recorders if key in counts}
            scale = model.teachers[name].get('teacher_scale', 1.0)
            self.teachers[name] = PlainTeacher(teacher, recorders, needed, self.data_preprocessor, scale)
        followed = {getattr(distiller.teacher_recorders.get_recorder(name), 'samples', None) for name in counts}
        names = sorted(name for name in followed if name is not None)
        self._followed = [distiller.student_recorders.get_recorder(name) for name in names]
        self._is_init = True

    def forward(self, inputs: Tensor, data_samples: list | None = None, mode: str = 'tensor') -> Any:
        """The student's losses, and nothing of the teachers."""
        if mode != 'loss':
            return self.architecture(inputs, data_samples, mode=mode)
        if not self._followed:
            self._run_teachers(inputs, data_samples)
        with contextlib.ExitStack() as stack:
            for recorder in self._followed:
                stack.enter_context(recorder)
            losses = self.architecture(inputs, data_samples, mode='loss')
        if self._followed:
            self._run_teachers(inputs, data_samples)
        for teacher in self._passes():
            teacher.release()
        for recorder in self._followed:
            recorder.reset_data_buffer()
        return losses

    def _passes(self) -> list[PlainTeacher]:
        return [teacher for teacher in self.teachers.values() if isinstance(teacher, PlainTeacher)]

    def _run_teachers(self, inputs: Tensor, data_samples: list | None) -> None:
        for teacher in self._passes():
            teacher(inputs, data_samples)

    def parse_losses(self, losses: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Add the losses up the way the student does."""
        return self.architecture.parse_losses(losses)


def _on_features(head: nn.Module) -> Any:
    """A hook that runs a head on what a module returns."""

    def hook(module: nn.Module, inputs: Any, outputs: Any) -> None:
        head(outputs)

    return hook
