"""The teacher in training: frozen, outside the module tree, and run only as far as it is read."""

from __future__ import annotations

import contextlib
import functools
from typing import Any, Callable

import torch
from mmengine.model import revert_sync_batchnorm
from torch import Tensor, nn

from mmkd_plugin.compat.razor import BaseRecorder
from mmkd_plugin.errors import DistillError
from mmkd_plugin.probe.anatomy import auxiliary_heads, trunk_name
from mmkd_plugin.teachers.economy import Economy
from mmkd_plugin.teachers.images import Renormalise, teacher_batch
from mmkd_plugin.teachers.options import TeacherOptions
from mmkd_plugin.teachers.weights import LoadedTeacher
from mmkd_plugin.utilities.clips import detector_of, key_frames


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
        options: How the forward pass is made cheaper; by default by what leaves the records as they are.
        where: Path of the options in the config, for messages.
    """

    built = True
    """Says so beside those whose records are kept."""

    def __init__(
        self,
        teacher: LoadedTeacher,
        student_preprocessor: nn.Module,
        scale: float = 1.0,
        same_classes: bool = False,
        options: TeacherOptions | None = None,
        where: str = 'teacher_options',
    ) -> None:
        self.model = revert_sync_batchnorm(teacher.model)
        # Not in a chain: detectors that override train() return nothing from it.
        self.model.eval()
        self.model.requires_grad_(False)
        self.report = teacher.report
        self.meta = teacher.meta
        self.scale = scale
        self.same_classes = same_classes
        self._renormalise = Renormalise.between(student_preprocessor, getattr(self.model, 'data_preprocessor', None))
        self.economy = Economy(self.model, options or TeacherOptions(), where)
        self._recorders: dict[str, BaseRecorder] = {}
        self._needed: dict[str, int] = {}

    def __deepcopy__(self, memo: dict) -> AbsentTeacher:
        """Copies of an algorithm, which averaging makes, have no teacher: it is neither doubled nor moved with them."""
        return AbsentTeacher()

    def apply_(self, function: Callable[[Tensor], Tensor]) -> None:
        """Follow the algorithm to another device or type."""
        self.model._apply(function)
        self.economy.moved()
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

    def batch(self, batch_inputs: Tensor, data_samples: list | None) -> tuple[Tensor, list | None]:
        """The student's batch as this teacher sees it, in its own size and normalisation.

        Args:
            batch_inputs: The student's batch, ``(N, 3, H, W)``; of a tracker's clips the key frames are taken.
            data_samples: Its data samples.

        Returns:
            The batch, and samples in whose sizes it is.
        """
        batch_inputs, data_samples = key_frames(batch_inputs, data_samples)
        if self.scale != 1:
            batch_inputs, data_samples = teacher_batch(batch_inputs, data_samples, self.scale)
        if self._renormalise is not None:
            batch_inputs = self._renormalise(batch_inputs, data_samples)
        return self.economy.placed(batch_inputs), data_samples

    def mark(self) -> None:
        """The batch of a step is there, and the student begins."""
        self.economy.mark()

    def sentences(self) -> list[str]:
        """What was loaded, and what makes the forward pass cheaper."""
        return [item for item in (self.report, self.economy.report()) if item]

    @torch.no_grad()
    def run(self, batch_inputs: Tensor, data_samples: list | None, needed: dict[str, int]) -> None:
        """Fill the teacher's recorders; nothing is done where nothing is needed.

        Args:
            batch_inputs: The student's batch, ``(N, 3, H, W)``; of a tracker's clips the key frames are taken.
            data_samples: Its data samples.
            needed: How many records are read, by recorder; other teachers' recorders are passed over.
        """
        needed = {name: count for name, count in needed.items() if name in self._recorders}
        if not needed:
            return
        own, samples = self.batch(batch_inputs, data_samples)
        forward = functools.partial(self._forward, own, samples, needed, batch_inputs)
        if not self.economy.knows(needed):
            recorders = {name: self._recorders[name] for name in needed}
            converts = self.scale != 1 or self._renormalise is not None or self.economy.options.device is not None
            follows = converts or any(hasattr(recorder, 'follow') for recorder in recorders.values())
            self.economy.verify(forward, recorders, len(needed) == len(self._recorders), batch_inputs.device, follows)
        forward()

    def _forward(self, batch: Tensor, data_samples: list | None, needed: dict[str, int], students: Tensor) -> None:
        """One pass up to the last record, which the student's batch tells how to hand over."""
        with contextlib.ExitStack() as stack:
            batch = stack.enter_context(self.economy.running(batch))
            for name in needed:
                stack.enter_context(self._recorders[name])
            self._needed = needed
            try:
                detector_of(self.model)(batch, data_samples, mode='tensor')
            except _EnoughRecorded:
                pass
            finally:
                # Whoever asks the teacher for a prediction later gets a whole one.
                self._needed = {}
        self.economy.hand_over([self._recorders[name] for name in needed], students)


class AbsentTeacher:
    """Stands where a copied algorithm has no teacher."""

    def apply_(self, function: Callable[[Tensor], Tensor]) -> None:
        """There is nothing to move."""

    def mark(self) -> None:
        """There is nobody to begin."""

    def run(self, batch_inputs: Tensor, data_samples: list | None, needed: dict[str, int]) -> None:
        """Refuse to train a copy."""
        raise DistillError('A copy of a distillation algorithm has no teacher; train the original, or build another.')


def _run_on_features(head: nn.Module) -> Callable[[nn.Module, Any, Any], None]:
    """A hook for the trunk that runs an auxiliary head, which the model's own forward pass leaves out."""

    def hook(module: nn.Module, inputs: Any, outputs: Any) -> None:
        head(outputs)

    return hook
