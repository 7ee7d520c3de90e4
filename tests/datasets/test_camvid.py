"""MMSegmentation must read CamVid in the layouts it comes in."""

from __future__ import annotations

import numpy as np
import pytest
from mmengine.registry import init_default_scope
from PIL import Image

from mmkd_plugin.errors import DistillError
from mmkd_plugin.registry import DATASETS

pytest.importorskip('mmseg')

PIPELINE = [{'type': 'LoadImageFromFile'}, {'type': 'LoadAnnotations'}, {'type': 'PackSegInputs'}]
LABELS = np.arange(12, dtype=np.uint8).reshape(3, 4)
LAYOUTS = {
    'segnet': ('{}', '{}annot', '.png'),
    'img': ('img/{}', 'ann/{}', '.jpg'),
    'images': ('images/{}', 'annotations/{}', '.jpg'),
    'labels': ('images/{}', 'labels/{}', '.png'),
    'mmseg': ('img_dir/{}', 'ann_dir/{}', '.png'),
}


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmseg')


def write(root, layout='segnet', labels=LABELS, splits=('train', 'val', 'test'), mode=None):
    """A copy with 1, 2 and 3 images in its splits."""
    images, maps, suffix = LAYOUTS[layout]
    for count, split in enumerate(splits, start=1):
        for folder in (images, maps):
            (root / folder.format(split)).mkdir(parents=True)
        for index in range(count):
            pixels = Image.fromarray(np.full((*labels.shape, 3), 10 * index, np.uint8))
            pixels.save(root / images.format(split) / f'{split}_{index}{suffix}')
            image = Image.fromarray(labels)
            (image.convert(mode) if mode else image).save(root / maps.format(split) / f'{split}_{index}.png')
    return root


def build(root, split='train', **options):
    config = dict(type='mmkd_plugin.CamVidDataset', data_root=str(root), split=split, pipeline=PIPELINE, **options)
    return DATASETS.build(config)


def loaded(dataset, index=0):
    return dataset[index]['data_samples'].gt_sem_seg.data[0].numpy()


@pytest.mark.parametrize('layout', LAYOUTS)
def test_every_layout_is_found(tmp_path, layout):
    write(tmp_path, layout)
    assert [len(build(tmp_path, split)) for split in ('train', 'val', 'test')] == [1, 2, 3]
    assert loaded(build(tmp_path, 'test'), 2).shape == (3, 4)


def test_eleven_classes_and_a_colour_for_each(tmp_path):
    dataset = build(write(tmp_path))
    assert len(dataset.metainfo['classes']) == len(set(dataset.metainfo['palette'])) == 11


def test_void_is_ignored_and_classes_stay(tmp_path):
    expected = LABELS.copy()
    expected[2, 3] = 255
    assert (loaded(build(write(tmp_path))) == expected).all()


def test_void_of_255_stays(tmp_path):
    labels = np.array([[0, 255], [10, 255]], np.uint8)
    assert (loaded(build(write(tmp_path, labels=labels))) == labels).all()


def test_some_of_the_classes(tmp_path):
    dataset = build(write(tmp_path), metainfo=dict(classes=('car', 'road')))
    labels = loaded(dataset)
    assert labels[0, 3] == 1 and labels[2, 0] == 0 and sorted(np.unique(labels)) == [0, 1, 255]
    assert list(dataset.metainfo['palette']) == [(64, 0, 128), (128, 64, 128)]


def test_folders_of_other_names(tmp_path):
    write(tmp_path)
    (tmp_path / 'val').rename(tmp_path / 'pictures')
    prefix = dict(img_path='pictures', seg_map_path='valannot')
    assert len(build(tmp_path, 'val', data_prefix=prefix)) == 2


def test_what_cannot_be_read_ends_in_a_sentence(tmp_path):
    with pytest.raises(DistillError, match='no folders of the split "train" are there'):
        build(tmp_path)
    with pytest.raises(DistillError, match='no split "tets".*test'):
        build(tmp_path, 'tets')
    with pytest.raises(DistillError, match='holds colours .RGB. instead of class numbers'):
        build(write(tmp_path, mode='RGB'))
    for file in (tmp_path / 'valannot').iterdir():
        file.unlink()
    with pytest.raises(DistillError, match='holds no label maps'):
        build(tmp_path, 'val')
