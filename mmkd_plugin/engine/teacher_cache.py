"""The kept records of a run's teachers: whether its data allows them, where they lie, and what they take."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Callable

from torch import nn

from mmkd_plugin.algorithms import DistillAlgorithm
from mmkd_plugin.block import DistillBlock
from mmkd_plugin.block.block import ONLY
from mmkd_plugin.datasets.same_size import SameSizeBatchSampler
from mmkd_plugin.errors import DistillError
from mmkd_plugin.teachers.cache import Budget, CachedSource, CachedTeacher, EntryKey, bytes_text
from mmkd_plugin.teachers.cache.identity import canonical
from mmkd_plugin.teachers.cache.pipeline import require_repeatable, with_record_keys
from mmkd_plugin.teachers.cache.sizes import Image, Padding, entries_of, images_of, require_plain_batches
from mmkd_plugin.teachers.cache.source import DESCRIPTION
from mmkd_plugin.teachers.cache.store import folder_bytes
from mmkd_plugin.utilities.record_key import image_key

Say = Callable[[str], object]

_REPLACED = ('BatchSampler', 'AspectRatioBatchSampler')
"""Batch samplers of which nothing is lost where all images of a batch have one size."""


@dataclasses.dataclass(frozen=True)
class Wanted:
    """Records that a data set needs.

    Attributes:
        keys: Those of each flip of each image, by the file that they lie in.
        images: The image of each.
    """

    keys: Mapping[str, EntryKey]
    images: Mapping[str, Image]

    @property
    def area(self) -> int:
        """Pixels of all images in their batches."""
        return sum(key.height * key.width for key in self.keys.values())


class TeacherCache:
    """The kept records of a run.

    Args:
        block: The distill block, with ``teacher_cache``.
        dataloader: Config of the training data.
        preprocessor: The student's.

    Raises:
        DistillError: If the data does not give the same image each time up to a flip.
    """

    def __init__(self, block: DistillBlock, dataloader: Any, preprocessor: nn.Module) -> None:
        assert block.teacher_cache is not None
        self.settings = block.teacher_cache
        self.root = Path(self.settings.dir).expanduser()
        dataset = dataloader.get('dataset') if isinstance(dataloader, dict) else None
        self.pipelines = require_repeatable(dataset, self.settings.repeatable)
        require_plain_batches(preprocessor)
        self.preprocessor = preprocessor

    def marked(self, dataloader: dict) -> dict:
        """The config of a dataloader whose samples say which image they show, and whose batches have one size."""
        marked = {**dataloader, 'dataset': with_record_keys(dataloader['dataset'], tuple(self.pipelines))}
        own = marked.get('batch_sampler') or {}
        kind = own.get('type', '')
        name = (kind if isinstance(kind, str) else kind.__name__).split('.')[-1]
        if (
            name in ('', *_REPLACED)
            and marked.get('batch_size', 1) > 1
            and not Padding(self.pipelines, self.preprocessor).alike
        ):
            drop_last = marked.pop('drop_last', own.get('drop_last', False))
            # A function, which the copies of the config that MMEngine makes leave alone.
            marked['batch_sampler'] = dict(
                type=SameSizeBatchSampler, drop_last=drop_last, sizes=lambda dataset: self.sizes(dataset)
            )
        return marked

    def sizes(self, dataset: Any) -> list[tuple[int, int]]:
        """Height and width of each image of a built data set in its batch, by its place."""
        padding = Padding(self.pipelines, self.preprocessor)
        return [padding.of(image) for image in entries_of(dataset, self.pipelines)]

    def sources(self, block: DistillBlock, preprocessor: Any) -> dict[str, CachedSource]:
        """Where the records of each teacher come from.

        Args:
            block: The distill block.
            preprocessor: Config of the student's preprocessor, on which what a teacher sees depends.
        """
        preparation = dict(
            pipelines={part: canonical(item.steps) for part, item in self.pipelines.items()},
            preprocessor=canonical(preprocessor),
        )
        most = None if self.settings.max_disk is None else self.settings.max_disk * 1e9
        return {
            name: CachedSource(
                dataclasses.asdict(teacher),
                'distill' if name == ONLY else f'distill.teachers.{name}',
                self.root,
                preparation,
                self.settings.dtype,
                most,
            )
            for name, teacher in block.used_teachers().items()
        }

    def wanted(self, dataset: Any) -> Wanted:
        """The records that a built data set needs.

        Raises:
            DistillError: If the data set does not tell its images.
        """
        keys, images = {}, {}
        padding = Padding(self.pipelines, self.preprocessor)
        for image in images_of(dataset, self.pipelines):
            height, width = padding.of(image)
            for flip in self.pipelines[image.part].flips:
                key = EntryKey(image_key(image.path, flip, image.part), height, width)
                keys[key.name] = key
                images[key.name] = image
        return Wanted(keys, images)

    def plan(self, algorithm: DistillAlgorithm, loader: Any, say: Say) -> Wanted:
        """Find out what is there and what is to come, before anything is computed.

        Args:
            algorithm: With the teachers.
            loader: Of the training data, as built.
            say: Told what is found.

        Returns:
            The records that the data needs.

        Raises:
            DistillError: If images of several sizes share batches, or the records have no room.
        """
        wanted = self.wanted(loader.dataset)
        sizes = {(key.height, key.width) for key in wanted.keys.values()}
        if len(sizes) > 1 and isinstance(loader.batch_sampler, SameSizeBatchSampler):
            say(f'Each batch holds images of one of {len(sizes)} sizes, as records of a teacher depend on the padding.')
        else:
            _require_own_size(sizes, loader)
        for teacher in cached(algorithm):
            plan_teacher(teacher, wanted, say)
        for folder, size in self.others(algorithm).items():
            say(
                f'"{folder}" ({bytes_text(size)}) holds records of another teacher, config or set of taps, which this '
                'run does not read; "mmkd cache CONFIG --remove-others" removes it.'
            )
        return wanted

    def others(self, algorithm: DistillAlgorithm) -> dict[Path, int]:
        """The stores in the folder that no teacher of this run reads, with their bytes."""
        mine = {teacher.store.folder.resolve() for teacher in cached(algorithm)}
        teachers = [folder for folder in sorted(self.root.glob('*')) if (folder / DESCRIPTION).is_file()]
        stores = [folder for teacher in teachers for folder in sorted(teacher.iterdir()) if folder.is_dir()]
        return {folder: folder_bytes(folder) for folder in stores if folder.resolve() not in mine}


def _require_own_size(sizes: Collection[tuple[int, int]], loader: Any) -> None:
    """Refuse batches in which an image is padded to the size of its neighbours."""
    batches = getattr(loader, 'batch_sampler', None)
    together = (getattr(batches, 'batch_size', None) or 0) + getattr(batches, 'unlabelled', 0)
    if len(sizes) <= 1 or together == 1:
        return
    examples = ' and '.join(f'{height} x {width}' for height, width in sorted(sizes)[:2])
    raise DistillError(
        'The teacher cache needs images that are padded alike in every batch, but the train pipeline gives '
        f'{len(sizes)} sizes, such as {examples}, and the teacher sees an image padded to the largest of its batch; '
        "end the pipeline with dict(type='Pad', size=...), resize with keep_ratio=False, take "
        'train_dataloader.batch_sampler and distill.unlabelled out, or set distill.teacher_cache=False.'
    )


def cached(algorithm: DistillAlgorithm) -> list[CachedTeacher]:
    """The teachers of an algorithm whose records are kept."""
    return [teacher for teacher in algorithm.teachers.values() if isinstance(teacher, CachedTeacher)]


def plan_teacher(teacher: CachedTeacher, wanted: Wanted, say: Say) -> None:
    """Count what is there of one teacher's records, and give it a budget for the rest."""
    store = teacher.store
    entries = store.entries()
    there = {name: entries[name] for name in wanted.keys if name in entries}
    teacher.budget = Budget(
        store, len(wanted.keys), wanted.area, len(there), sum(there.values()), teacher.source.most, say
    )
    say(teacher.report)
    foreign = sum(size for name, size in entries.items() if name not in there)
    if foreign:
        say(
            f'"{store.folder}" also holds {len(entries) - len(there):,} records ({bytes_text(foreign)}) of images that '
            'this data set does not have, or that have changed since.'
        )
