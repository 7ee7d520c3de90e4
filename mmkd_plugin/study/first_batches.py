"""The first batches of a training: how fast they come, and what is in them."""

from __future__ import annotations

import copy
import dataclasses
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any

from mmkd_plugin.errors import DistillError

BOXES = 'boxes'
PIXELS = 'labelled pixels'


@dataclasses.dataclass(frozen=True)
class Truth:
    """What the images of some batches are labelled with.

    Attributes:
        kind: ``'boxes'`` or ``'labelled pixels'``; empty where the samples hold neither.
        counts: Of each image.
    """

    kind: str
    counts: Sequence[int]

    @property
    def images(self) -> int:
        """How many images there are."""
        return len(self.counts)

    @property
    def without(self) -> int:
        """How many images have none."""
        return sum(count == 0 for count in self.counts)


@dataclasses.dataclass(frozen=True)
class FirstBatches:
    """Batches that a loader gave.

    Attributes:
        batches: The first ones, as the loader gave them.
        seconds: Time that the loader needs for a batch in the long run.
        read: How many were read; those behind ``batches`` are not kept.
    """

    batches: list[Any]
    seconds: float
    read: int


class KeptBatches:
    """Gives a copy of the same few batches again and again, and is otherwise the loader that they are from.

    Args:
        loader: The loader.
        batches: What it gave.
    """

    def __init__(self, loader: Any, batches: Sequence[Any]) -> None:
        self._loader = loader
        self._batches = batches

    def __iter__(self) -> Iterator[Any]:
        while True:
            for batch in self._batches:
                yield copy.deepcopy(batch)

    def __len__(self) -> int:
        return len(self._loader)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__['_loader'], name)


def read_batches(loader: Any, count: int) -> FirstBatches:
    """Read the first batches of a loader, one right behind the other.

    Args:
        loader: A loader of training data.
        count: How many are kept; with workers more may be read, since the first ones are made at the same time.

    Returns:
        The batches, fewer where the data ends.

    Raises:
        DistillError: If there is none.
    """
    workers = int(getattr(loader, 'num_workers', 0))
    batches: list[Any] = []
    arrivals: list[float] = []
    started = time.perf_counter()
    for batch in loader:
        arrivals.append(time.perf_counter() - started)
        if len(batches) < count:
            batches.append(batch)
        if len(arrivals) >= max(count, 2 * workers + 1):
            break
    if not batches:
        raise DistillError(
            f'train_dataloader gives no batch from its {_length(loader)} images; lower train_dataloader.batch_size, '
            'set drop_last=False, or check ann_file and filter_cfg of the data set.'
        )
    return FirstBatches(batches, steady_seconds(arrivals, workers), len(arrivals))


def steady_seconds(arrivals: Sequence[float], workers: int) -> float:
    """Time between two batches in the long run.

    Args:
        arrivals: Seconds from the first request to each batch, all requested at once.
        workers: Processes that each make a batch at the same time; 0 where the loader itself makes them.

    Returns:
        Seconds. Without workers, the median time of a batch, the first apart, which opens files and caches. With
        workers, the time of whole rounds of them, behind the first batch.
    """
    if len(arrivals) == 1:
        return arrivals[0]
    if not workers:
        return statistics.median(after - before for before, after in zip(arrivals, arrivals[1:]))
    last = len(arrivals) - 1
    last = last - last % workers or last
    return (arrivals[last] - arrivals[0]) / last


def truth_of(batches: Sequence[Any], ignored: int = 255) -> Truth:
    """Count boxes, or labelled pixels where the samples hold no boxes.

    Args:
        batches: As a loader gives them.
        ignored: Label of the pixels that do not count.
    """
    samples = [sample for batch in batches for sample in _samples(batch)]
    boxes: list[Any] = [getattr(sample, 'gt_instances', None) for sample in samples]
    if samples and all(item is not None and 'bboxes' in item for item in boxes):
        return Truth(BOXES, [len(item.bboxes) for item in boxes])
    maps: list[Any] = [getattr(sample, 'gt_sem_seg', None) for sample in samples]
    if samples and all(item is not None for item in maps):
        return Truth(PIXELS, [int((item.data != ignored).sum()) for item in maps])
    return Truth('', [0] * len(samples))


def _samples(batch: Any) -> list[Any]:
    """The samples of a batch, of a clip its key frames; none where a batch is built in another way."""
    samples = batch.get('data_samples') if isinstance(batch, dict) else None
    if not isinstance(samples, (list, tuple)):
        return []
    found: list[Any] = []
    for sample in samples:
        found += sample.get_key_frames() if hasattr(sample, 'get_key_frames') else [sample]
    return found


def _length(loader: Any) -> int:
    """Images of a loader's data set."""
    return len(loader.dataset)


def waiting_seconds(step: float, load: float, workers: int) -> float:
    """How long each step waits for its batch, in the long run.

    Args:
        step: Seconds of a step itself.
        load: Seconds between two batches of the loader.
        workers: Its processes; they load while the step is computed.
    """
    return max(0.0, load - step) if workers else load


def run_seconds(iterations: int, step: float, load: float, workers: int) -> float:
    """How long a whole run takes, without validation and checkpoints.

    Args:
        iterations: Of the run.
        step: As for :func:`waiting_seconds`.
        load: As for :func:`waiting_seconds`.
        workers: As for :func:`waiting_seconds`.
    """
    return iterations * (step + waiting_seconds(step, load, workers))


def duration_text(seconds: float) -> str:
    """A duration in its two largest units: ``'3 h 20 min'``."""
    if round(seconds) < 60:
        return f'{max(1, round(seconds))} s'
    minutes = round(seconds / 60)
    if minutes < 60:
        return f'{minutes} min'
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f'{hours} h {minutes} min' if minutes else f'{hours} h'
    days, hours = divmod(round(seconds / 3600), 24)
    return f'{days} d {hours} h' if hours else f'{days} d'
