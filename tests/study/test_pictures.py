"""The pictures show what the losses compare."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import init_default_scope
from PIL import Image

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')

from _helpers import tiny_seg

from mmkd_plugin.datasets.coco_mini import MiniSettings, ensure_coco_mini
from mmkd_plugin.errors import DistillError
from mmkd_plugin.probe.taps import Tap
from mmkd_plugin.study.pictures.canvas import build_model, load_weights, save
from mmkd_plugin.study.pictures.imitation import imitation_levels, imitation_picture
from mmkd_plugin.study.pictures.similarity import similarity_map, similarity_picture

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data') / 'coco_mini'
    return ensure_coco_mini(folder, MiniSettings(train=4, val=2), report=lambda line: None)


@pytest.fixture
def detector(data):
    cfg = Config.fromfile(ROOT / 'configs/coco_mini/fgi_retina_r34_to_r18.py')
    cfg.train_dataloader.dataset.data_root = str(data)
    return cfg


@pytest.fixture
def segmentor(data, tmp_path):
    """A config with two checkpoints: a student's and, with the teacher's weights, its teacher's."""
    init_default_scope('mmseg')
    torch.manual_seed(0)
    for name, width in (('student', 16), ('teacher', 24)):
        model = ROOT_MODELS.build(tiny_seg.pspnet(width=width))
        model.init_weights()
        torch.save(dict(state_dict=model.state_dict()), tmp_path / f'{name}.pth')
    pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
    block = tiny_seg.block(dict(type='PairWise'), teacher_ckpt=str(tmp_path / 'teacher.pth'))
    return tiny_seg.run_config(tmp_path, distill=block, test_dataloader=dict(dataset=dict(pipeline=pipeline)))


def item(boxes):
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    sample = DetDataSample(metainfo=dict(img_shape=(128, 128), ori_shape=(128, 128), pad_shape=(128, 128)))
    boxes = torch.tensor(boxes)
    sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.zeros(len(boxes), dtype=torch.long))
    return dict(inputs=torch.zeros(3, 128, 128, dtype=torch.uint8), data_samples=sample)


def test_cells_lie_where_the_anchors_do(detector):
    """A square as large as an anchor, around the cell (5, 6) of stride 8, lights that cell and neighbours of it."""
    fine, middle, coarse = imitation_levels(detector, item([[40.0, 32.0, 56.0, 48.0]]))
    assert [level.stride for level in (fine, middle, coarse)] == [8, 16, 32]
    assert fine.corner == (-4.0, -4.0)
    assert fine.mask[5, 6]
    rows, columns = np.nonzero(fine.mask.numpy())
    assert set(rows) <= {4, 5, 6} and set(columns) <= {5, 6, 7}
    assert not middle.mask.any() and not coarse.mask.any()


def test_cells_of_boxes_start_at_the_corner_of_the_image(detector):
    detector.distill.methods.fgi.region = 'boxes'
    fine = imitation_levels(detector, item([[40.0, 32.0, 56.0, 48.0]]))[0]
    assert fine.corner == (0.0, 0.0)
    assert fine.mask.nonzero().tolist() == [[4, 5], [4, 6], [5, 5], [5, 6]]


def test_mask_picture_is_drawn_on_the_training_image(detector, tmp_path):
    path = imitation_picture(detector, 1, tmp_path / 'mask.png')
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert('RGB')).astype(int)
    boxes = (abs(pixels - (0, 229, 255)).sum(-1) < 30).sum()
    assert pixels.shape[1] == 1200 and boxes > 100
    with pytest.raises(DistillError, match='has 4 images, so there is no number 4'):
        imitation_picture(detector, 4, tmp_path / 'mask.png')


def test_mask_needs_fgi(detector):
    detector.distill.methods = dict(fgd=dict(type='FGD'))
    with pytest.raises(DistillError, match='no FGI in its distill block'):
        imitation_levels(detector, {})


class TwoHalves(torch.nn.Module):
    """Features that point right in the left half of the image and up in the right half."""

    def __init__(self):
        super().__init__()
        self.body = torch.nn.Identity()

    def data_preprocessor(self, data, training):
        return data

    def forward(self, inputs, samples, mode):
        feature = torch.zeros(1, 2, 4, 6)
        feature[:, 0, :, :3] = 2.0
        feature[:, 1, :, 3:] = 5.0
        return self.body(feature)


def test_similarity_is_that_of_the_cell_under_the_pixel():
    found = similarity_map(TwoHalves(), Tap('body', 2, 8), item([]), (0.9, 0.1))
    assert torch.allclose(found[:, :3], torch.zeros(4, 3)) and torch.allclose(found[:, 3:], torch.ones(4, 3))


def test_similarity_picture_has_a_map_for_each_model(segmentor, data, tmp_path):
    image = min((data / 'val').iterdir())
    students = {'alone': str(tmp_path / 'student.pth'), 'distilled': str(tmp_path / 'student.pth')}
    path = similarity_picture(segmentor, students, image, (5, 7), tmp_path / 'maps.png')
    with Image.open(path) as picture:
        assert picture.size[0] == 1360
    with pytest.raises(DistillError, match='has 128 x 128 pixels, so there is none at 128 7'):
        similarity_picture(segmentor, students, image, (128, 7), tmp_path / 'maps.png')
    with pytest.raises(DistillError, match='does not exist'):
        similarity_picture(segmentor, students, tmp_path / 'none.png', (5, 7), tmp_path / 'maps.png')


def test_command_line(detector, tmp_path, monkeypatch, capsys):
    detector.dump(tmp_path / 'fgi.py')
    out = tmp_path / 'mask.png'
    arguments = ['imitation-mask', str(tmp_path / 'fgi.py'), '--image-index', '2', '--out', str(out)]
    monkeypatch.setattr(sys, 'argv', ['visualize.py', *arguments])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / 'tools/visualize.py'), run_name='__main__')
    assert ended.value.code == 0
    assert out.exists() and str(out) in capsys.readouterr().out


def test_similarity_needs_a_segmentor(detector, tmp_path):
    with pytest.raises(DistillError, match='the RetinaNet of the config is none'):
        similarity_picture(detector, {'alone': 'none.pth'}, tmp_path / 'none.png', (5, 7), tmp_path / 'maps.png')


def test_similarity_needs_a_teacher(segmentor, tmp_path):
    segmentor.pop('distill')
    with pytest.raises(DistillError, match='no distill block, so there is no teacher'):
        similarity_picture(segmentor, {'alone': 'none.pth'}, tmp_path / 'none.png', (5, 7), tmp_path / 'maps.png')


def test_file_that_is_no_image(segmentor, tmp_path):
    text = tmp_path / 'note.png'
    text.write_text('no image')
    with pytest.raises(DistillError, match=r'note.png" cannot be read as an image'):
        similarity_picture(segmentor, {'alone': 'none.pth'}, text, (5, 7), tmp_path / 'maps.png')


@pytest.mark.parametrize(
    ('change', 'fault'),
    [
        (lambda state: state.pop('decode_head.conv_seg.bias'), r'it lacks "decode_head\.conv_seg\.bias"'),
        (lambda state: state.update(more=torch.zeros(1)), 'the model has no "more"'),
        (
            lambda state: state.update({'decode_head.conv_seg.bias': torch.zeros(5)}),
            r'"decode_head\.conv_seg\.bias" has the shape \(5,\) in the file and \(3,\) in the model',
        ),
    ],
    ids=['missing', 'unknown', 'other shape'],
)
def test_checkpoint_of_another_model(segmentor, tmp_path, change, fault):
    model = build_model(segmentor)
    state = model.state_dict()
    change(state)
    torch.save(dict(state_dict=state), tmp_path / 'other.pth')
    with pytest.raises(DistillError, match=rf'is not one of the EncoderDecoder of the config \({fault}\)'):
        load_weights(model, str(tmp_path / 'other.pth'))


def test_file_without_weights(segmentor, tmp_path):
    torch.save([1, 2], tmp_path / 'list.pth')
    with pytest.raises(DistillError, match='holds no weights of a model'):
        load_weights(build_model(segmentor), str(tmp_path / 'list.pth'))


def test_mask_needs_the_training_data(detector, tmp_path):
    detector.train_dataloader.dataset.data_root = str(tmp_path / 'nowhere')
    with pytest.raises(DistillError, match=r'The training data is not there \(.*nowhere'):
        imitation_picture(detector, 0, tmp_path / 'mask.png')


def test_picture_that_cannot_be_written(tmp_path):
    with pytest.raises(DistillError, match=r'mask\.video" cannot be written .* give one such as mask\.png'):
        save(Figure(), tmp_path / 'mask.video')
