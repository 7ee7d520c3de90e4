"""A teacher whose records are read from a store, and that runs for those alone which are not there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmkd_plugin.errors import DistillError
from mmkd_plugin.teachers.cache.budget import Budget
from mmkd_plugin.teachers.cache.source import CachedSource
from mmkd_plugin.teachers.cache.store import DTYPES, EntryKey, Store
from mmkd_plugin.teachers.economy import Economy
from mmkd_plugin.teachers.frozen import AbsentTeacher, FrozenTeacher
from mmkd_plugin.teachers.weights import LoadedTeacher
from mmkd_plugin.utilities.record_key import get_image_key


class CachedTeacher:
    """Stands where a :class:`FrozenTeacher` would, and builds one when a record is missing.

    Records are rounded to the store's type also in the step that computes them, so that a run comes to the same numbers
    whether its records were there before or not. The teacher computes them in full precision.

    Args:
        source: The teacher, and where its records lie.
        freeze: Makes the running teacher of a loaded one.
        scale: Size of its images in those of the student.
        same_classes: As of a :class:`FrozenTeacher`.
    """

    def __init__(
        self,
        source: CachedSource,
        freeze: Callable[[LoadedTeacher], FrozenTeacher],
        scale: float = 1.0,
        same_classes: bool = False,
    ) -> None:
        self.source = source
        self.scale = scale
        self.same_classes = same_classes
        self.budget: Budget | None = None
        self.misses = 0
        self._freeze = freeze
        self._built: FrozenTeacher | None = None
        self._moves: list[Callable[[Tensor], Tensor]] = []
        self._recorders: dict[str, Any] = {}
        self._parts: dict[str, list[tuple[int, Any]]] = {}
        self._needed: dict[str, int] = {}

    def __deepcopy__(self, memo: dict) -> AbsentTeacher:
        """Copies of an algorithm have no teacher."""
        return AbsentTeacher()

    @property
    def built(self) -> bool:
        """Whether the teacher itself is there."""
        return self._built is not None

    @property
    def model(self) -> nn.Module:
        """The teacher's model; asking for it builds it."""
        return self.frozen.model

    @property
    def economy(self) -> Economy:
        """What makes its forward pass cheaper; asking for it builds the teacher."""
        return self.frozen.economy

    @property
    def meta(self) -> dict:
        """What is known of its checkpoint."""
        return self.source.meta

    @property
    def report(self) -> str:
        """A sentence on its records, and whether it was built."""
        there = '' if self.budget is None else f', {self.budget.told()}'
        teacher = f'; {self._built.report}' if self._built is not None else '; the teacher is not built'
        return f'teacher records: kept in "{self.store.folder}"{there}{teacher}'

    def sentences(self) -> list[str]:
        """What is known of its records, and what makes its forward pass cheaper where there is one."""
        return [self.report, *(self._built.sentences()[1:] if self._built is not None else [])]

    def mark(self) -> None:
        """The batch of a step is there, and the student begins."""
        if self._built is not None:
            self._built.mark()

    @property
    def frozen(self) -> FrozenTeacher:
        """The running teacher, built when it is first asked for."""
        if self._built is None:
            frozen = self._freeze(self.source.loaded)
            for recorder in self._recorders.values():
                recorder.initialize(frozen.model)
            frozen.watch(self._recorders)
            for move in self._moves:
                frozen.apply_(move)
            self._built = frozen
        return self._built

    def let_go(self) -> None:
        """Free a teacher that nothing needs any more, because all of its records are there."""
        if self.budget is not None and self.budget.whole:
            self._built = None
            vars(self.source).pop('loaded', None)

    def apply_(self, function: Callable[[Tensor], Tensor]) -> None:
        """Follow the algorithm to another device or type, now or once the teacher is built."""
        self._moves.append(function)
        if self._built is not None:
            self._built.apply_(function)

    def watch(self, recorders: dict[str, Any]) -> None:
        """Take note of the recorders that are to be filled; see :meth:`FrozenTeacher.watch`."""
        self._recorders = recorders

    def open(self, reads: dict[str, list[tuple[int, Any]]], needed: dict[str, int]) -> None:
        """Find the store.

        Args:
            reads: Which records of each recorder the losses read, and which elements of these.
            needed: How many records of each recorder that takes.

        Raises:
            DistillError: If a recorder's records depend on more than the image.
        """
        for name, entries in reads.items():
            recorder = self._recorders[name]
            parts = {part for entry in entries for part in recorder.parts(*entry)}
            self._parts[name] = sorted(parts, key=repr)
        self._needed = needed
        self.store: Store = self.source.store(sorted(set(self._names(self._parts))))

    def batch(self, batch_inputs: Tensor, data_samples: list | None) -> tuple[Tensor, list | None]:
        """The student's batch as this teacher sees it."""
        return self.frozen.batch(batch_inputs, data_samples)

    @torch.no_grad()
    def run(self, batch_inputs: Tensor, data_samples: list | None, needed: dict[str, int]) -> None:
        """Fill the teacher's recorders from the store; arguments as of :meth:`FrozenTeacher.run`.

        A batch with an image that no checked pipeline has made runs through the teacher, and is not kept.
        """
        wanted = {name: parts for name, parts in self._parts.items() if name in needed}
        if not wanted:
            return
        keys = entry_keys(batch_inputs, data_samples)
        if keys is None:
            self.frozen.run(batch_inputs, data_samples, needed)
            return
        names = sorted(set(self._names(wanted)))
        found: list[Any] = [self.store.read(key, names) for key in keys]
        missing = [index for index, entry in enumerate(found) if entry is None]
        if missing:
            for index, entry in zip(missing, self.compute(batch_inputs, data_samples or [], keys, missing)):
                found[index] = entry
        held = {name: _batched([entry[name] for entry in found], batch_inputs.device) for name in names}
        for recorder, parts in wanted.items():
            self._recorders[recorder].restore({part: held[self._name(recorder, part)] for part in parts})

    @torch.no_grad()
    def compute(
        self, batch_inputs: Tensor, data_samples: list, keys: Sequence[EntryKey], missing: Sequence[int]
    ) -> list[dict[str, Tensor]]:
        """Run the teacher on some images of a batch, and keep its records.

        Args:
            batch_inputs: The student's batch, ``(N, 3, H, W)``.
            data_samples: Its data samples.
            keys: Those of the samples.
            missing: Which images.

        Returns:
            The tensors of each of these images by name, as they lie in the store.

        Raises:
            DistillError: If the disk has no room, or records cannot be kept in the store's type.
        """
        if self.misses == 0 and self._built is None:
            print_log(f'Records are missing in "{self.store.folder}", so the teacher is built.', 'current')
        whole = list(missing) == list(range(len(data_samples)))
        inputs = batch_inputs if whole else batch_inputs[list(missing)]
        with torch.autocast(batch_inputs.device.type, enabled=False):
            self.frozen.run(inputs, [data_samples[index] for index in missing], self._needed)
        tensors: dict[str, Tensor] = {}
        for recorder, parts in self._parts.items():
            for part in parts:
                name = self._name(recorder, part)
                if name not in tensors:
                    tensors[name] = self._rounded(name, self._recorders[recorder].part(*part), len(missing))
            self._recorders[recorder].reset_data_buffer()
        entries = [{name: tensor[place] for name, tensor in tensors.items()} for place in range(len(missing))]
        for index, entry in zip(missing, entries):
            content = self.store.encode(keys[index], entry)
            if self.budget is not None:
                self.budget.spend(len(content), keys[index].height * keys[index].width)
            self.store.write(keys[index], content)
        self.misses += len(missing)
        return entries

    def _rounded(self, name: str, value: Any, images: int) -> Tensor:
        """A record as the store keeps it."""
        if not isinstance(value, Tensor) or not value.is_floating_point() or len(value) != images:
            raise DistillError(
                f'The teacher\'s record "{name}" is no tensor with an entry for each image, so it cannot be kept; take '
                'another tap, or set distill.teacher_cache=False.'
            )
        rounded = value.to(DTYPES[self.store.dtype])
        if not bool(torch.isfinite(rounded).all()):
            finite = bool(torch.isfinite(value).all())
            raise DistillError(
                f'The teacher\'s record "{name}" has values that {self.store.dtype} cannot hold; set '
                "distill.teacher_cache.dtype='bfloat16', or 'float32'."
                if finite
                else f'The teacher\'s record "{name}" is not finite; give a teacher that has learnt.'
            )
        return rounded.cpu()

    def _name(self, recorder: str, part: tuple[int, Any]) -> str:
        """What a part is called in the store: the same for all recorders of one place."""
        return f'{self._recorders[recorder].place}:{part[0]}' + ('' if part[1] is None else f':{part[1]}')

    def _names(self, parts: dict[str, list[tuple[int, Any]]]) -> list[str]:
        return [self._name(recorder, part) for recorder, found in parts.items() for part in found]


def entry_keys(batch_inputs: Tensor, data_samples: list | None) -> list[EntryKey] | None:
    """What the records of a batch are found by, None where a sample does not say which image it shows."""
    images = [get_image_key(sample) for sample in data_samples or []]
    if batch_inputs.dim() != 4 or len(images) != len(batch_inputs):
        return None
    height, width = batch_inputs.shape[-2:]
    keys = [EntryKey(image, height, width) for image in images if image is not None]
    return keys if len(keys) == len(images) else None


def _batched(entries: Sequence[Tensor], device: torch.device) -> Tensor:
    """The records of several images as one, in single precision where the losses are."""
    # Half as many bytes go to the device as would behind the conversion.
    return torch.stack(list(entries)).to(device, non_blocking=True).float()
