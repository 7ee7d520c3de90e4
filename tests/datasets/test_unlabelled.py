"""Images without labels: what is read, in which order, and on which process."""

from __future__ import annotations

import itertools
from unittest import mock

import numpy as np
import pytest
import torch
from _helpers.tiny_seg import TinyMaps
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.runner import Runner
from PIL import Image

from mmkd_plugin.datasets import MixedBatchSampler, MixedDataset, NoLabels, UnlabelledImages
from mmkd_plugin.errors import DistillError
from mmkd_plugin.utilities.unlabelled import is_unlabelled

LOAD, PACK = dict(type='LoadImageFromFile'), dict(type='mmseg.PackSegInputs')


@pytest.fixture
def folder(tmp_path):
    """Five images in two folders, and files that are none."""
    for index, name in enumerate(['b/2.png', 'a/0.PNG', 'a/1.jpg', 'b/3.jpeg', '4.png']):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((6, 8, 3), 40 * index, np.uint8)).save(tmp_path / name)
    (tmp_path / 'a' / 'notes.txt').write_text('no image')
    (tmp_path / 'b' / '.hidden.png').write_text('no image')
    return tmp_path


def sampler(kind=DefaultSampler, labelled=6, images=5, count=2, batch_size=2, rank=0, ranks=1, **options):
    """A batch sampler of one process over data sets of which only the lengths matter."""
    dataset = MixedDataset(list(range(labelled)), list(range(images)))
    with mock.patch('mmengine.dataset.sampler.get_dist_info', lambda: (rank, ranks)), mock.patch(
        'mmkd_plugin.datasets.unlabelled.get_dist_info', lambda: (rank, ranks)
    ):
        inner = kind(dataset, shuffle=True, seed=7)
        return MixedBatchSampler(inner, batch_size=batch_size, unlabelled=count, **options)


def unlabelled_of(batches):
    return [index for batch in batches for index in batch if index < 0]


def test_images_of_a_folder_and_those_inside_it(folder):
    names = [path[len(str(folder)) + 1 :] for path in UnlabelledImages(str(folder), [LOAD]).paths]
    assert names == ['4.png', 'a/0.PNG', 'a/1.jpg', 'b/2.png', 'b/3.jpeg']
    assert len(UnlabelledImages([str(folder / 'a'), str(folder / 'b')], [LOAD])) == 4


@pytest.mark.parametrize(
    ('name', 'message'), [('nowhere', '"[^"]*nowhere" is not there; put it there'), ('empty', 'holds none .*png')]
)
def test_folder_without_images_is_one_sentence(tmp_path, name, message):
    (tmp_path / 'empty').mkdir()
    with pytest.raises(DistillError, match=message):
        UnlabelledImages(str(tmp_path / name), [LOAD])


def test_no_folder_is_one_sentence():
    with pytest.raises(DistillError, match='names no folder'):
        UnlabelledImages([], [LOAD])


@pytest.mark.parametrize('labels', [[], [dict(type='mmkd_plugin.NoLabels')]], ids=['no map', 'ignored map'])
def test_sample_is_marked_and_wholly_ignored(folder, labels):
    item = UnlabelledImages(str(folder), [LOAD, *labels, PACK])[1]
    assert is_unlabelled(item['data_samples']) and item['data_samples'].img_path.endswith('0.PNG')
    assert not is_unlabelled(TinyMaps()[0]['data_samples'])
    label = item['data_samples'].gt_sem_seg.data
    assert label.shape == (1, 6, 8) and label.dtype == torch.int64 and bool((label == 255).all())


def test_crop_that_wants_several_classes_takes_an_image_without_any(folder):
    crop = dict(type='mmseg.RandomCrop', crop_size=(4, 4), cat_max_ratio=0.75)
    item = UnlabelledImages(str(folder), [LOAD, dict(type='mmkd_plugin.NoLabels'), crop, PACK])[0]
    assert item['inputs'].shape == (3, 4, 4) and item['data_samples'].gt_sem_seg.shape == (4, 4)


def test_map_has_the_size_of_the_image():
    results = NoLabels()(dict(img=np.zeros((3, 5, 3)), seg_fields=[]))
    assert results['gt_seg_map'].shape == (3, 5) and results['seg_fields'] == ['gt_seg_map']


def test_image_that_the_pipeline_refuses_gives_way_to_the_next(folder):
    taken = UnlabelledImages(str(folder), [LOAD, lambda item: None if '4.png' in item['img_path'] else item, PACK])
    assert taken[0]['data_samples'].img_path.endswith('0.PNG')
    with pytest.raises(DistillError, match='takes none of them'):
        UnlabelledImages(str(folder), [LOAD, lambda item: None])[0]


def test_pipeline_without_a_sample_is_one_sentence(folder):
    with pytest.raises(DistillError, match='gives no data sample'):
        UnlabelledImages(str(folder), [LOAD])[0]


def test_mixed_set_is_the_labelled_one_with_more_under_negative_numbers():
    labelled = TinyMaps(4)
    dataset = MixedDataset(labelled, ['first', 'second'])
    assert len(dataset) == 4 and dataset.metainfo is labelled.metainfo
    assert dataset[-1] == 'first' and dataset[-2] == 'second'
    assert torch.equal(dataset[3]['inputs'], labelled[3]['inputs'])
    with pytest.raises(AttributeError):
        _ = dataset.nonsense


@pytest.mark.parametrize('drop_last', [False, True])
def test_labelled_batches_are_as_without(drop_last):
    mixed = sampler(labelled=7, batch_size=3, drop_last=drop_last)
    stock = torch.utils.data.BatchSampler(DefaultSampler(list(range(7)), shuffle=True, seed=7), 3, drop_last)
    assert len(mixed) == len(stock)
    assert [[index for index in batch if index >= 0] for batch in mixed] == list(stock)
    assert all(batch[-2] < 0 and batch[-1] < 0 and batch[-3] >= 0 for batch in mixed)


def test_each_image_once_before_any_comes_again():
    indices = unlabelled_of(itertools.islice(sampler(InfiniteSampler, images=6, count=3), 40))
    rounds = [indices[start : start + 6] for start in range(0, 120, 6)]
    assert all(sorted(each) == [-6, -5, -4, -3, -2, -1] for each in rounds)
    assert len({tuple(each) for each in rounds}) > 10


@pytest.mark.parametrize('images', [1, 5])
def test_fewer_images_than_a_batch_wants(images):
    batches = list(sampler(images=images, count=7))
    assert all(len([index for index in batch if index < 0]) == 7 for batch in batches)


def test_processes_share_the_images():
    shares = [
        unlabelled_of(itertools.islice(sampler(InfiniteSampler, images=12, count=2, rank=rank, ranks=3), 2))
        for rank in range(3)
    ]
    assert sorted(index for share in shares for index in share) == list(range(-12, 0))


@pytest.mark.parametrize('ranks', [1, 2])
def test_resumed_epoch_goes_on_in_the_order(ranks):
    whole = sampler(labelled=8, ranks=ranks, rank=ranks - 1)
    epochs = []
    for epoch in range(4):
        whole.sampler.set_epoch(epoch)
        epochs.append(list(whole))
    resumed = sampler(labelled=8, ranks=ranks, rank=ranks - 1)
    resumed.sampler.set_epoch(2)
    assert list(resumed) == epochs[2]
    assert unlabelled_of(epochs[0]) != unlabelled_of(epochs[1])


def test_sampler_of_another_data_set_is_one_sentence():
    with pytest.raises(DistillError, match='no images without labels behind DefaultSampler'):
        MixedBatchSampler(DefaultSampler(TinyMaps(4)), batch_size=2, unlabelled=1)


def test_batch_sampler_of_ones_own(tmp_path):
    loader = dict(
        dataset=dict(type='mmkd_plugin.MixedDataset', dataset=TinyMaps(4), unlabelled=TinyMaps(3)),
        sampler=dict(type='DefaultSampler', shuffle=False),
        batch_size=3,
        batch_sampler=dict(
            type='mmkd_plugin.MixedBatchSampler',
            unlabelled=1,
            batch_sampler=dict(type=torch.utils.data.BatchSampler, drop_last=True),
        ),
    )
    built = Runner.build_dataloader(loader, seed=0)
    assert [len(batch['inputs']) for batch in built] == [4]
