"""The generated set must be the same everywhere, consistent, and have what a detection set has."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import subprocess
import sys
from collections import Counter
from pathlib import Path

import mmcv
import numpy as np
import pytest
from pycocotools.coco import COCO

from mmkd_plugin.datasets.coco_mini import COCO_MINI_CLASSES, COCO_MINI_SHA256, MiniSettings, ensure_coco_mini
from mmkd_plugin.errors import DistillError

SPLITS = ('train', 'val')
ENVIRONMENT = {**os.environ, 'TERM': 'xterm', 'COLUMNS': '100'}


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob('*') if path.is_file()}


def annotation_file(root: Path, split: str) -> dict:
    return json.loads((root / 'annotations' / f'instances_{split}.json').read_bytes())


def test_default_set_has_the_committed_checksum(full_set):
    digest = hashlib.sha256()
    for name, content in sorted(contents(full_set).items()):
        if name != 'manifest.json':
            digest.update(f'{name} {len(content)}\n'.encode() + content)
    assert digest.hexdigest() == COCO_MINI_SHA256


def test_two_runs_give_the_same_bytes(small_set, tmp_path):
    settings = MiniSettings(seed=3, train=12, val=6, size=64)
    again = ensure_coco_mini(tmp_path / 'again', settings, report=lambda line: None)
    assert contents(again) == contents(small_set)


def test_layout_is_that_of_coco(small_set):
    names = {f'{number:012d}.png' for number in range(1, 13)}
    assert {path.name for path in (small_set / 'train').iterdir()} == names
    assert {path.name for path in (small_set / 'semantic' / 'train').iterdir()} == names
    assert {image['file_name'] for image in annotation_file(small_set, 'train')['images']} == names
    assert len(list((small_set / 'val').iterdir())) == len(list((small_set / 'semantic' / 'val').iterdir())) == 6


def test_seed_changes_the_images(small_set, tmp_path):
    settings = MiniSettings(seed=4, train=12, val=6, size=64)
    other = ensure_coco_mini(tmp_path / 'other', settings, report=lambda line: None)
    name = 'train/000000000001.png'
    assert (other / name).read_bytes() != (small_set / name).read_bytes()


def test_smaller_set_is_the_beginning_of_a_larger_one(small_set, tmp_path):
    settings = MiniSettings(seed=3, train=2, val=3, size=64)
    fewer = ensure_coco_mini(tmp_path / 'fewer', settings, report=lambda line: None)
    shared = {name for name in contents(fewer) if name.endswith('.png')}
    assert len(shared) == 10
    assert all((fewer / name).read_bytes() == (small_set / name).read_bytes() for name in shared)


def test_ids_are_unique_over_both_splits(full_set):
    files = [annotation_file(full_set, split) for split in SPLITS]
    for kind in ('images', 'annotations'):
        ids = [entry['id'] for content in files for entry in content[kind]]
        assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(('split', 'count'), [('train', 500), ('val', 400)])
def test_set_has_what_a_detection_set_has(full_set, split, count):
    content = annotation_file(full_set, split)
    objects = [entry for entry in content['annotations'] if not entry['iscrowd']]
    classes = Counter(entry['category_id'] for entry in objects)
    assert len(content['images']) == count
    assert [category['name'] for category in content['categories']] == list(COCO_MINI_CLASSES)
    assert len(COCO_MINI_CLASSES) >= 5
    assert sorted(classes) == list(range(1, len(COCO_MINI_CLASSES) + 1))
    assert max(classes.values()) < 1.5 * min(classes.values())
    crowded = {entry['image_id'] for entry in content['annotations'] if entry['iscrowd']}
    assert 0.02 * count <= len(crowded) <= 0.2 * count
    empty = count - len({entry['image_id'] for entry in content['annotations']})
    assert 0.01 * count <= empty <= 0.1 * count
    # COCO counts areas under 32 * 32 pixels as small.
    small = sum(entry['area'] < 32 * 32 for entry in objects)
    assert 0.5 * len(objects) < small < 0.9 * len(objects)


@pytest.mark.parametrize('split', SPLITS)
def test_boxes_and_areas_are_those_of_the_masks(full_set, split, capsys):
    coco = COCO(str(full_set / 'annotations' / f'instances_{split}.json'))
    for entry in coco.anns.values():
        mask = coco.annToMask(entry)
        rows, columns = np.nonzero(mask)
        left, top = columns.min(), rows.min()
        assert mask.shape == (128, 128)
        assert entry['area'] == len(rows)
        assert entry['bbox'] == [left, top, columns.max() + 1 - left, rows.max() + 1 - top]


@pytest.mark.parametrize('split', SPLITS)
def test_masks_do_not_share_pixels_though_boxes_overlap(full_set, split, capsys):
    coco = COCO(str(full_set / 'annotations' / f'instances_{split}.json'))
    hidden = 0
    for image in coco.getImgIds():
        masks = [coco.annToMask(entry) for entry in coco.imgToAnns[image]]
        if not masks:
            continue
        assert np.sum(masks, axis=0).max() == 1
        covers = np.zeros((128, 128), dtype=int)
        for x, y, width, height in (entry['bbox'] for entry in coco.imgToAnns[image]):
            covers[y : y + height, x : x + width] += 1
        hidden += covers.max() > 1
    assert hidden > len(coco.getImgIds()) // 3


@pytest.mark.parametrize('split', SPLITS)
def test_semantic_maps_agree_with_the_instances(full_set, split, capsys):
    coco = COCO(str(full_set / 'annotations' / f'instances_{split}.json'))
    for image in coco.imgs.values():
        expected = np.zeros((128, 128), dtype=np.uint8)
        for entry in coco.imgToAnns[image['id']]:
            expected[coco.annToMask(entry) == 1] = 255 if entry['iscrowd'] else entry['category_id']
        found = mmcv.imread(str(full_set / 'semantic' / split / image['file_name']), flag='unchanged')
        assert np.array_equal(found, expected)


def test_colour_does_not_give_the_class_away(full_set, capsys):
    # The mean colours of the classes differ by far less than the colours of the objects of one class.
    coco = COCO(str(full_set / 'annotations' / 'instances_train.json'))
    colours: dict[int, list[np.ndarray]] = {}
    for entry in coco.anns.values():
        name = coco.imgs[entry['image_id']]['file_name']
        pixels = mmcv.imread(str(full_set / 'train' / name))[coco.annToMask(entry) == 1]
        colours.setdefault(entry['category_id'], []).append(pixels.mean(axis=0))
    means = np.array([np.mean(values, axis=0) for values in colours.values()])
    within = np.mean([np.std(values, axis=0) for values in colours.values()])
    assert means.std(axis=0).max() < 0.25 * within


@pytest.mark.parametrize(
    ('changes', 'sentence'),
    [
        ({'seed': -1}, 'seed is -1'),
        ({'train': 0}, 'number of train images is 0'),
        ({'val': 500001}, 'number of val images is 500001'),
        ({'size': 32}, 'image size is 32'),
    ],
)
def test_impossible_settings_are_refused(changes, sentence):
    with pytest.raises(DistillError, match=sentence):
        MiniSettings(**changes)


def test_lines_go_to_the_report_alone(tmp_path, capsys):
    lines: list[str] = []
    ensure_coco_mini(tmp_path / 'set', MiniSettings(train=2, val=1, size=64), report=lines.append)
    assert lines == [f'{(tmp_path / "set").resolve()} is being made.']
    # Without a terminal there is no bar.
    assert capsys.readouterr() == ('', '')


def test_terminal_shows_a_bar_for_each_split(tmp_path):
    code = (
        'from mmkd_plugin.datasets.coco_mini import MiniSettings, ensure_coco_mini;'
        'ensure_coco_mini("set", MiniSettings(train=2, val=1, size=64), report=lambda line: None)'
    )
    master, terminal = pty.openpty()
    with os.fdopen(terminal, 'wb') as stream:
        subprocess.run([sys.executable, '-c', code], cwd=tmp_path, stdout=stream, check=True, env=ENVIRONMENT)
    shown = os.read(master, 100_000).decode()
    os.close(master)
    assert 'train' in shown
    assert 'val' in shown
    assert '100%' in shown
