"""KITTI and ILSVRC-DET trees, made here, as COCO files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image
from pycocotools.coco import COCO

from mmkd_plugin.datasets.to_coco import convert_ilsvrc_det, convert_kitti
from mmkd_plugin.errors import DistillError

ROOT = Path(__file__).resolve().parents[2]
CAR = 'Car 0.00 0 1.85 10.0 20.0 30.0 60.0 1.67 1.87 3.69 -16.53 2.39 58.49 1.57'
KITTI = {
    '000000': [CAR, 'DontCare -1 -1 -10 1 2 3 4 -1 -1 -1 -1000 -1000 -1000 -10'],
    '000001': ['Van 0 0 0 5 5 15 25 1 1 1 1 1 1 1', 'Tram 0 0 0 5 5 15 25 1 1 1 1 1 1 1', ''],
    '000002': [],
}


def kitti(root):
    for folder in ('image_2', 'label_2'):
        (root / 'training' / folder).mkdir(parents=True)
    for name, lines in KITTI.items():
        (root / f'training/label_2/{name}.txt').write_text('\n'.join(lines))
        Image.new('RGB', (100, 80)).save(root / f'training/image_2/{name}.png')
    return root


def ilsvrc(root):
    for split, name, wnid in (('train/n1', 'a', 'n02'), ('val', 'b', 'n01')):
        annotation = root / 'Annotations/DET' / split
        images = root / 'Data/DET' / split
        annotation.mkdir(parents=True)
        images.mkdir(parents=True)
        Image.new('RGB', (50, 40)).save(images / f'{name}.JPEG', 'JPEG')
        box = '<bndbox><xmin>1</xmin><xmax>11</xmax><ymin>2</ymin><ymax>22</ymax></bndbox>'
        (annotation / f'{name}.xml').write_text(f'<annotation><object><name>{wnid}</name>{box}</object></annotation>')
    return root


def test_kitti(tmp_path, capsys):
    assert convert_kitti(kitti(tmp_path / 'kitti'), tmp_path / 'out') == dict(train=2, val=1)
    train, val = (COCO(str(tmp_path / f'out/kitti_{split}.json')) for split in ('train', 'val'))
    assert [item['name'] for item in train.cats.values()] == ['Car', 'Pedestrian', 'Cyclist']
    images = {item['file_name']: item for item in train.imgs.values()}
    assert set(images) == {'training/image_2/000000.png', 'training/image_2/000002.png'}
    assert (images['training/image_2/000000.png']['width'], images['training/image_2/000000.png']['height']) == (
        100,
        80,
    )
    first = train.loadAnns(train.getAnnIds(imgIds=images['training/image_2/000000.png']['id']))
    assert [(item['category_id'], item['bbox'], item['iscrowd']) for item in first] == [
        (1, [10, 20, 20, 40], 0),
        *((number, [1, 2, 2, 2], 1) for number in (1, 2, 3)),
    ]
    # A van is neither a car nor a false alarm; a tram is nothing.
    assert [(item['category_id'], item['iscrowd']) for item in val.anns.values()] == [(1, 1)]


def test_kitti_with_a_split_of_ones_own(tmp_path):
    root = kitti(tmp_path)
    assert convert_kitti(root, tmp_path / 'out', ['000000', '000002']) == dict(train=1, val=2)
    with pytest.raises(DistillError, match='"000009" has no label file'):
        convert_kitti(root, tmp_path / 'out', ['000009'])


def test_what_is_no_kitti_is_refused(tmp_path):
    with pytest.raises(DistillError, match='data_object_label_2.zip'):
        convert_kitti(tmp_path, tmp_path)
    root = kitti(tmp_path / 'kitti')
    (root / 'training/label_2/000002.txt').write_text('Car 1 2 3 4 5')
    with pytest.raises(DistillError, match='Line 1 of .*000002.txt" is no label of KITTI'):
        convert_kitti(root, tmp_path)
    (root / 'training/label_2/000002.txt').write_text(CAR)
    (root / 'training/image_2/000002.png').unlink()
    with pytest.raises(DistillError, match='000002.png" is missing'):
        convert_kitti(root, tmp_path)


@pytest.mark.parametrize('named', [False, True])
def test_ilsvrc_det(tmp_path, named):
    names = None
    if named:
        names = tmp_path / 'map_det.txt'
        names.write_text('n01 1 accordion\nn02 2 air plane\nn03 3 ant\n')
    assert convert_ilsvrc_det(ilsvrc(tmp_path / 'ILSVRC'), tmp_path, names) == dict(train=1, val=1)
    content = json.loads((tmp_path / 'ilsvrc_det_train.json').read_text())
    classes = [item['name'] for item in content['categories']]
    assert classes == (['accordion', 'air plane', 'ant'] if named else ['n01', 'n02'])
    assert (tmp_path / 'ilsvrc_det_classes.txt').read_text().splitlines() == classes
    (annotation,) = content['annotations']
    assert (annotation['category_id'], annotation['bbox']) == (2, [1, 2, 10, 20])
    assert content['images'][0]['file_name'] == 'Data/DET/train/n1/a.JPEG'


def test_what_is_no_ilsvrc_is_refused(tmp_path):
    with pytest.raises(DistillError, match='give the folder ILSVRC itself'):
        convert_ilsvrc_det(tmp_path, tmp_path)
    root = ilsvrc(tmp_path / 'ILSVRC')
    (tmp_path / 'names.txt').write_text('n01 1 accordion\n')
    with pytest.raises(DistillError, match='does not name the class "n02"'):
        convert_ilsvrc_det(root, tmp_path, tmp_path / 'names.txt')
    (root / 'Annotations/DET/val/b.xml').write_text('<annotation><object></object></annotation>')
    with pytest.raises(DistillError, match='b.xml" is no annotation of ILSVRC'):
        convert_ilsvrc_det(root, tmp_path)


@pytest.mark.parametrize('named', [True, False])
def test_configs_read_what_is_written(tmp_path, monkeypatch, named):
    pytest.importorskip('mmdet')
    from mmdet.registry import DATASETS
    from mmdet.utils import register_all_modules

    register_all_modules(init_default_scope=False)
    init_default_scope('mmdet')
    monkeypatch.chdir(tmp_path)
    names = tmp_path / 'map_det.txt'
    names.write_text('n01 1 accordion\nn02 2 air plane\n')
    convert_kitti(kitti(Path('data/kitti')), Path('data/kitti/annotations'))
    convert_ilsvrc_det(ilsvrc(Path('data/ILSVRC')), Path('data/ILSVRC/annotations'), names if named else None)
    for data, classes, label in (
        ('kitti_600', ('Car', 'Pedestrian', 'Cyclist'), 0),
        ('ilsvrc_det', ('accordion', 'air plane') if named else ('n01', 'n02'), 1),
    ):
        config = Config.fromfile(ROOT / f'configs/_base_/datasets/{data}.py')
        dataset = DATASETS.build(config.train_dataloader.dataset)
        assert tuple(dataset.metainfo['classes']) == classes
        # One image of KITTI has no box, and is not trained on.
        assert len(dataset) == 1
        found = [item['bbox_label'] for item in dataset.get_data_info(0)['instances'] if not item['ignore_flag']]
        assert found == [label]
        assert dataset[0]['inputs'].shape[1] == 600
        assert len(DATASETS.build(config.val_dataloader.dataset)) == 1
        assert Path(config.val_evaluator.ann_file).is_file()
