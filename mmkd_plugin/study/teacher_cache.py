"""Fill the kept records of a config's teachers before it is trained."""

from __future__ import annotations

import dataclasses
import io
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Callable

from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from torch.utils.data import DataLoader, Subset

from mmkd_plugin.algorithms import DistillAlgorithm
from mmkd_plugin.engine.state_hook import algorithm_of
from mmkd_plugin.engine.teacher_cache import TeacherCache, Wanted, cached
from mmkd_plugin.errors import DistillError
from mmkd_plugin.study.check import trial_config
from mmkd_plugin.study.runs import new_runner, sent_to
from mmkd_plugin.teachers.cache import CachedTeacher
from mmkd_plugin.teachers.cache.pipeline import turn
from mmkd_plugin.teachers.cache.teacher import entry_keys

Progress = Callable[[int, int], object]
"""Told how many images are done, and how many there are."""
Say = Callable[[str], object]


@dataclasses.dataclass(frozen=True)
class Kept:
    """The kept records of one teacher.

    Attributes:
        folder: Where they lie.
        records: How many the training data needs.
        size: Bytes of those.
        computed: How many were not there.
    """

    folder: Path
    records: int
    size: int
    computed: int


def fill_cache(
    cfg: Config,
    say: Say = lambda line: None,
    progress: Progress = lambda done, total: None,
    remove_others: bool = False,
) -> list[Kept]:
    """Compute what is missing of the teacher's records of a config's training data.

    Args:
        cfg: The config, with a distill block; ``teacher_cache`` is switched on where the block does not name it.
        say: Told what will be taken, before anything is written.
        progress: Told how far it is.
        remove_others: Whether what this config does not read is removed from the folder of the cache.

    Returns:
        What there is of each teacher.

    Raises:
        DistillError: If the config's data or methods do not allow it, or the disk has no room.
    """
    if cfg.get('distill') is None:
        raise DistillError('The config has no distill block, so it has no teacher whose records could be kept.')
    if not cfg.distill.get('teacher_cache'):
        cfg.distill.teacher_cache = True
    folder = Path(tempfile.mkdtemp(prefix='mmkd_cache_'))
    try:
        with sent_to(io.StringIO()):
            runner: Any = new_runner(trial_config(cfg, folder))
            runner.mix_unlabelled()
            runner.add_distillation()
            algorithm, cache = algorithm_of(runner), runner.teacher_cache()
            if algorithm is None or cache is None:
                raise DistillError('Every method of the distill block has weight 0, so no teacher says anything.')
            loader = runner.train_loop.dataloader
            wanted = cache.wanted(loader.dataset)
        if remove_others:
            _remove(cache, algorithm, wanted, say)
        for teacher in cached(algorithm):
            if teacher.budget is not None:
                teacher.budget.say = say
        _fill(algorithm, wanted, loader, cfg, progress)
        return [_kept(teacher, wanted) for teacher in cached(algorithm)]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _fill(algorithm: DistillAlgorithm, wanted: Wanted, loader: Any, cfg: Config, progress: Progress) -> None:
    """Run the teachers on all images of which a record is missing."""
    stores = [(teacher, set(wanted.keys) - set(teacher.store.entries())) for teacher in cached(algorithm)]
    missing = set().union(*(names for _, names in stores))
    done, total = 0, len(missing)
    progress(done, total)
    size = 1 if len({(key.height, key.width) for key in wanted.keys.values()}) > 1 else _batch_size(loader)
    algorithm.train()
    for flip in sorted({wanted.keys[name].image.flip for name in missing}):
        turn(loader.dataset, flip)
        indices = sorted(wanted.images[name].place for name in missing if wanted.keys[name].image.flip == flip)
        for batch in _batches(loader.dataset, indices, size, cfg):
            data = algorithm.data_preprocessor(batch, training=True)
            inputs, samples = data['inputs'], data['data_samples']
            keys = entry_keys(inputs, samples) or []
            for teacher, names in stores:
                places = [place for place, key in enumerate(keys) if key.name in names]
                if places:
                    teacher.compute(inputs, samples, keys, places)
            done += len(samples)
            progress(done, total)


def _batches(dataset: Any, indices: Sequence[int], size: int, cfg: Config) -> Iterator[Any]:
    """Some images of a data set, as the training loads them."""
    workers = int(cfg.train_dataloader.get('num_workers', 0))
    return iter(DataLoader(Subset(dataset, list(indices)), size, num_workers=workers, collate_fn=pseudo_collate))


def _batch_size(loader: Any) -> int:
    batches = loader.batch_sampler
    return int(getattr(batches, 'batch_size', 1))


def _remove(cache: TeacherCache, algorithm: DistillAlgorithm, wanted: Wanted, say: Say) -> None:
    """Remove stores that are not read, records of images that are not there, and what was never finished."""
    for folder in cache.others(algorithm):
        shutil.rmtree(folder)
        say(f'removed: "{folder}"')
    for teacher in cached(algorithm):
        store = teacher.store
        names = [name for name in store.entries() if name not in wanted.keys] + list(store.leftovers())
        store.remove(names)
        if names:
            say(f'removed: {len(names):,} files of "{store.folder}"')


def _kept(teacher: CachedTeacher, wanted: Wanted) -> Kept:
    """What there is of a teacher's records now."""
    entries = teacher.store.entries()
    there = [entries[name] for name in wanted.keys if name in entries]
    return Kept(teacher.store.folder, len(there), sum(there), teacher.misses)
