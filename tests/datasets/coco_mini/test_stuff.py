"""Maps of COCO-Stuff come out in the numbers that the zoo's models were trained with."""

from __future__ import annotations

import ast
from pathlib import Path

import mmcv
import numpy as np
import pytest
from _helpers.coco_tree import HEIGHT, WIDTH, coco_tree
from PIL import Image

from mmkd_plugin.datasets.coco_mini import coco_split, ensure_coco_subset
from mmkd_plugin.datasets.coco_mini.stuff import SUFFIX, write_map
from mmkd_plugin.errors import DistillError


def zoo_table() -> dict[int, int]:
    """The table of MMSegmentation's converter."""
    mmseg = pytest.importorskip('mmseg')
    source = Path(mmseg.__file__).parent / '.mim/tools/dataset_converters/coco_stuff164k.py'
    (found,) = [
        node.value
        for node in ast.parse(source.read_text()).body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], 'id', '') == 'clsID_to_trID'
    ]
    return ast.literal_eval(found)


def write(folder: Path, values: list, name: str = '7.png', **arguments) -> np.ndarray:
    """Convert one map; what MMSegmentation would read of it."""
    pixels = np.array(values, np.uint8)
    mmcv.imwrite(pixels, str(folder / name))
    write_map(folder, '7.jpg', pixels.shape[:2], folder / 'out', **arguments)
    return mmcv.imread(str(folder / 'out' / f'7{SUFFIX}'), 'unchanged', backend='pillow')


def test_numbers_are_those_of_mmsegmentation(tmp_path):
    table = zoo_table()
    written = write(tmp_path, [list(table)])
    assert written.dtype == np.uint8 and written[0].tolist() == list(table.values())


def test_numbers_of_a_palette_stay_numbers(tmp_path):
    picture = Image.fromarray(np.array([[0, 12, 255]], np.uint8), 'P')
    picture.putpalette([number % 256 for number in range(768)])
    picture.save(tmp_path / '7.png')
    write_map(tmp_path, '7.jpg', (1, 3), tmp_path)
    assert np.asarray(Image.open(tmp_path / f'7{SUFFIX}')).tolist() == [[0, 11, 255]]


@pytest.mark.parametrize('symlink', [False, True])
def test_a_converted_map_stays_as_it_is(tmp_path, symlink):
    # 170 and 11 are train ids; as numbers of COCO-Stuff the one would be 159 and the other none at all.
    mmcv.imwrite(np.array([[5, 5, 5]], np.uint8), str(tmp_path / '7.png'))
    assert write(tmp_path, [[170, 11, 255]], f'7{SUFFIX}', symlink=symlink).tolist() == [[170, 11, 255]]
    assert (tmp_path / 'out' / f'7{SUFFIX}').is_symlink() == symlink


@pytest.mark.parametrize(('values', 'name', 'number'), [([[3, 11]], '7.png', 11), ([[182]], '7.png', 182)])
def test_a_number_that_no_class_has_is_refused(tmp_path, values, name, number):
    with pytest.raises(DistillError, match=f'holds {number}, which is no class of COCO-Stuff; give the maps of'):
        write(tmp_path, values, name)


def test_a_train_id_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(DistillError, match='holds 171, which is no class of COCO-Stuff'):
        write(tmp_path, [[171]], f'7{SUFFIX}')


def test_a_map_in_colours_is_refused(tmp_path):
    mmcv.imwrite(np.zeros((2, 3, 3), np.uint8), str(tmp_path / '7.png'))
    with pytest.raises(DistillError, match=r'has the shape \(2, 3, 3\), but the image "7.jpg" is of \(2, 3\)'):
        write_map(tmp_path, '7.jpg', (2, 3), tmp_path)


def test_a_map_that_is_no_picture_is_refused(tmp_path):
    (tmp_path / '7.png').write_text('no picture')
    with pytest.raises(DistillError, match=r'7\.png" cannot be read'):
        write_map(tmp_path, '7.jpg', (2, 3), tmp_path)


def test_a_subset_has_the_maps_of_its_images(tmp_path):
    root = coco_tree(tmp_path / 'coco', dict(train2017=6, val2017=4))
    splits = [coco_split(root, name, 3, 'stuffthingmaps') for name in ('train2017', 'val2017')]
    out = ensure_coco_subset(tmp_path / 'out', *splits, report=lambda line: None)
    table = zoo_table()
    for path in (out / 'train').iterdir():
        source = mmcv.imread(str(root / 'stuffthingmaps/train2017' / f'{path.stem}.png'), 'unchanged')
        written = mmcv.imread(str(out / 'semantic/train' / f'{path.stem}{SUFFIX}'), 'unchanged')
        assert written.shape == (HEIGHT, WIDTH)
        assert written.tolist() == [[table[number] for number in row] for row in source.tolist()]
    assert len(list((out / 'semantic/train').iterdir())) == len(list((out / 'semantic/val').iterdir())) == 3


def test_missing_maps_are_named(tmp_path):
    root = coco_tree(tmp_path / 'coco', dict(train2017=6, val2017=4))
    splits = [coco_split(root, name, 3, 'stuffthingmaps') for name in ('train2017', 'val2017')]
    for path in (root / 'stuffthingmaps/val2017').iterdir():
        path.unlink()
    with pytest.raises(DistillError, match=r'The map ".*\.png" of the image "\d+\.jpg" is not there'):
        ensure_coco_subset(tmp_path / 'out', *splits, report=lambda line: None)
    (root / 'stuffthingmaps/val2017').rmdir()
    with pytest.raises(DistillError, match='semantic maps of .* are expected in the folder ".*stuffthingmaps.val2017"'):
        ensure_coco_subset(tmp_path / 'out', *splits, report=lambda line: None)
    assert not (tmp_path / 'out').exists()


def test_a_subset_without_maps_is_no_subset_with_maps(tmp_path):
    root = coco_tree(tmp_path / 'coco', dict(train2017=6, val2017=4))
    for maps in (None, 'stuffthingmaps'):
        splits = [coco_split(root, name, 3, maps) for name in ('train2017', 'val2017')]
        if maps is None:
            ensure_coco_subset(tmp_path / 'out', *splits, report=lambda line: None)
            continue
        with pytest.raises(DistillError, match='was made with other settings'):
            ensure_coco_subset(tmp_path / 'out', *splits, report=lambda line: None)
