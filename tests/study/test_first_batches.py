"""What the first batches hold, and the arithmetic from their times to the length of a run."""

from __future__ import annotations

import pytest
import torch
from _helpers.tiny import TinyBoxes
from _helpers.tiny_seg import TinyMaps
from mmengine.dataset import pseudo_collate
from torch.utils.data import DataLoader, Dataset

from mmkd_plugin.errors import DistillError
from mmkd_plugin.study.first_batches import (
    BOXES,
    PIXELS,
    KeptBatches,
    Truth,
    duration_text,
    read_batches,
    run_seconds,
    steady_seconds,
    truth_of,
    waiting_seconds,
)


class Numbered(Dataset):
    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> int:
        return index


def loader(length: int, **options) -> DataLoader:
    return DataLoader(Numbered(length), collate_fn=list, **options)


def collated(dataset: Dataset, indices: tuple[int, ...]) -> dict:
    return pseudo_collate([dataset[index] for index in indices])


def test_boxes_are_counted_by_image():
    """Image 0 has none; the others have 1 + index % 3."""
    dataset = TinyBoxes()
    truth = truth_of([collated(dataset, (0, 1, 2)), collated(dataset, (3, 4, 5))])
    assert truth == Truth(BOXES, [0, 2, 3, 1, 2, 3])
    assert (truth.images, truth.without) == (6, 1)


def test_pixels_are_counted_where_there_are_no_boxes():
    """A rim of 4 rows of 64 is ignored."""
    assert truth_of([collated(TinyMaps(), (0, 1))]) == Truth(PIXELS, [60 * 64] * 2)
    assert truth_of([collated(TinyMaps(ignored=True), (0,))]) == Truth(PIXELS, [0])
    # The same label counts where the head ignores another.
    assert truth_of([collated(TinyMaps(ignored=True), (0,))], ignored=254) == Truth(PIXELS, [64 * 64])


@pytest.mark.parametrize('batch', [dict(inputs=[]), dict(data_samples=dict(sup=[])), [1, 2]])
def test_batches_of_another_kind_are_not_counted(batch):
    assert truth_of([batch]) == Truth('', [])


def test_first_batches_are_kept_in_order():
    data = read_batches(loader(10, batch_size=2), 3)
    assert data.batches == [[0, 1], [2, 3], [4, 5]] and data.read == 3
    assert read_batches(loader(3, batch_size=2), 5).batches == [[0, 1], [2]]


def test_workers_are_given_two_rounds():
    data = read_batches(loader(20, batch_size=2, num_workers=2), 1)
    assert data.batches == [[0, 1]] and data.read == 5


def test_no_batch_at_all():
    with pytest.raises(DistillError, match='gives no batch from its 3 images; lower train_dataloader.batch_size'):
        read_batches(loader(3, batch_size=4, drop_last=True), 1)


def test_kept_batches_come_again_as_copies():
    whole = loader(10, batch_size=2)
    tensor = torch.zeros(1)
    kept = KeptBatches(whole, [[tensor], ['b']])
    taken = [batch for batch, _ in zip(kept, range(3))]
    taken[0][0].fill_(1)
    assert tensor.item() == 0 and taken[1] == ['b'] and taken[2] == [tensor]
    assert len(kept) == 5 and kept.dataset is whole.dataset and kept.batch_size == 2


def test_the_first_batch_of_no_worker_does_not_count():
    """Batches after 9, 10, 12 and 15 seconds took 1, 2 and 3."""
    assert steady_seconds([9, 10, 12, 15], workers=0) == 2
    assert steady_seconds([9], workers=0) == 9


def test_workers_bring_their_batches_in_rounds():
    """Each of 2 workers needs 4 seconds for a batch, so that one comes every 2 seconds."""
    assert steady_seconds([4, 4, 8, 8, 12], workers=2) == 2
    # What is left of the last round says nothing.
    assert steady_seconds([4, 4, 8, 8, 12, 12], workers=2) == 2
    # Less than a round.
    assert steady_seconds([4, 5], workers=4) == 1


def test_waiting():
    assert waiting_seconds(step=2, load=0.5, workers=0) == 0.5
    assert waiting_seconds(step=2, load=0.5, workers=4) == 0
    assert waiting_seconds(step=2, load=5, workers=4) == 3


@pytest.mark.parametrize(('load', 'workers', 'seconds'), [(0.5, 0, 250), (0.5, 2, 200), (3, 2, 300)])
def test_length_of_a_run(load, workers, seconds):
    assert run_seconds(100, step=2, load=load, workers=workers) == seconds


@pytest.mark.parametrize(
    ('seconds', 'text'),
    [
        (0.2, '1 s'),
        (59, '59 s'),
        (59.6, '1 min'),
        (90 * 0.6, '54 s'),
        (3599, '1 h'),
        (12000, '3 h 20 min'),
        (172799, '2 d'),
        (180000, '2 d 2 h'),
    ],
)
def test_durations_in_words(seconds, text):
    assert duration_text(seconds) == text
