"""``mmkd visualize`` on a user's images: what is drawn, and what is refused."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from mmengine.config import Config
from PIL import Image

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')

from _helpers import tiny_seg
from _helpers.tiny import build

from mmkd_plugin.__main__ import main
from mmkd_plugin.datasets.coco_mini import MiniSettings, ensure_coco_mini
from mmkd_plugin.engine.state_hook import STATE_KEY
from mmkd_plugin.functional import spatial_attention
from mmkd_plugin.study.pictures import features, predictions
from mmkd_plugin.study.pictures.canvas import build_model
from mmkd_plugin.study.pictures.features import Taps
from mmkd_plugin.study.pictures.images import picture_files, read_image
from mmkd_plugin.study.pictures.predictions import metainfo

ROOT = Path(__file__).resolve().parents[2]
FGD = ROOT / 'configs/coco_mini/fgd_retina_r34_to_r18.py'


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config on made-up data, with a distilled student of two steps and a student alone."""
    folder = tmp_path_factory.mktemp('looks')
    data = ensure_coco_mini(folder / 'data', MiniSettings(train=4, val=2), report=lambda line: None)
    cfg = Config.fromfile(FGD)
    for loader in (cfg.train_dataloader, cfg.test_dataloader, cfg.val_dataloader):
        loader.dataset.data_root = str(data)
    cfg.dump(folder / 'fgd.py')
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=1, val_interval=100)
    cfg.work_dir, cfg.param_scheduler = str(folder / 'run'), None
    cfg.train_dataloader.batch_size = 2
    for key in ('val_dataloader', 'val_cfg', 'val_evaluator'):
        cfg.pop(key)
    cfg.default_hooks = dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=1))
    build(cfg).train()
    torch.manual_seed(3)
    torch.save(dict(state_dict=build_model(Config.fromfile(folder / 'fgd.py')).state_dict()), folder / 'alone.pth')
    return folder


@pytest.fixture
def images(folder: Path) -> list[str]:
    return [str(path) for path in sorted((folder / 'data/val').iterdir())]


def draw(*arguments: Any) -> int:
    return main(['visualize', *map(str, arguments)])


def distilled(folder: Path) -> Path:
    return folder / 'run/iter_1.pth'


def width(path: Path) -> int:
    with Image.open(path) as picture:
        return picture.size[0]


def test_attention_of_several_images(folder: Path, images: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    out = folder / 'attention.png'
    arguments = ['--student', folder / 'alone.pth', '--image', *images, '--out', out]
    assert draw('attention', folder / 'fgd.py', distilled(folder), *arguments) == 0
    files = [folder / f'attention_{Path(image).stem}.png' for image in images]
    assert capsys.readouterr().out.split()[-2:] == [str(file) for file in files]
    assert [width(file) for file in files] == 2 * [int(100 * (2.3 * 4 + 0.9))]


def test_attention_is_that_of_the_maps_that_a_training_taps(folder: Path, images: list[str]) -> None:
    config = Config.fromfile(folder / 'fgd.py')
    taps = Taps(config)
    assert taps.losses == ['loss_fgd_level0', 'loss_fgd_level1', 'loss_fgd_level2'] and taps.temperature == 0.5
    assert taps.load(str(distilled(folder)))
    item = read_image(config, Path(images[0]))
    _, levels = taps.of(item)
    algorithm = taps.algorithm
    data = algorithm.data_preprocessor(dict(inputs=[item['inputs']], data_samples=[item['data_samples']]), False)
    stored = torch.load(distilled(folder), weights_only=False)[STATE_KEY]
    for index, level in enumerate(levels):
        # Before norm and activation: the last convolution of each level of the neck.
        convolution = algorithm.architecture.neck.fpn_convs[index].conv
        seen: list[torch.Tensor] = []
        handle = convolution.register_forward_hook(lambda module, inputs, output, seen=seen: seen.append(output))
        with torch.no_grad():
            algorithm.architecture.extract_feat(data['inputs'])
        handle.remove()
        assert torch.equal(level.student, seen[0])
        name = f'connectors.loss_fgd_level{index}.conv'
        adapted = torch.nn.functional.conv2d(seen[0], stored[f'{name}.weight'], stored[f'{name}.bias'])
        assert torch.allclose(level.adapted, adapted, atol=1e-5)
        assert level.teacher.shape == level.adapted.shape


def drawn(picture: Any, **arguments: Any) -> Any:
    """What a picture is drawn of."""
    kept: list[Any] = []
    name = picture.__name__.replace('_pictures', '_figure').replace('feature_', 'differences_')
    with mock.patch.object(features, name, lambda *seen: kept.append(seen)), mock.patch.object(
        features, 'save', lambda figure, out: out
    ):
        picture(**arguments)
    return kept


def test_student_alone_is_shown_before_the_connector(folder: Path, images: list[str]) -> None:
    config = Config.fromfile(folder / 'fgd.py')
    students = {'student alone': str(folder / 'alone.pth'), 'distilled': str(distilled(folder))}
    item = features.Shown(read_image(config, Path(images[0])))
    [(_, models)] = drawn(features.attention_pictures, config=config, students=students, images={Path('a'): item})
    assert list(models) == ['teacher', 'student alone,\nbefore the connector', 'distilled']
    taps = Taps(config)
    assert not taps.load(students['student alone'])
    _, levels = taps.of(item.item)
    alone = models['student alone,\nbefore the connector']
    for level, spatial in zip(levels, alone.spatial):
        assert torch.equal(spatial, spatial_attention(level.student)[0])


def test_differences_compare_values_where_all_students_can(folder: Path, images: list[str]) -> None:
    config = Config.fromfile(folder / 'fgd.py')
    item = {Path('a'): features.Shown(read_image(config, Path(images[0])))}
    [(_, maps, measure)] = drawn(
        features.feature_pictures, config=config, students={'distilled': str(distilled(folder))}, images=item
    )
    taps = Taps(config)
    taps.load(str(distilled(folder)))
    _, levels = taps.of(item[Path('a')].item)
    assert measure.of_values
    for level, found in zip(levels, maps['distilled']):
        assert torch.allclose(found, (level.adapted - level.teacher).abs().mean(1)[0])
    both = {'student alone': str(folder / 'alone.pth'), 'distilled': str(distilled(folder))}
    [(_, _, measure)] = drawn(features.feature_pictures, config=config, students=both, images=item)
    assert not measure.of_values


def test_features_of_two_widths_are_compared_by_attention(tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save(dict(state_dict=build_model(tiny_seg.run_config(tmp_path)).state_dict()), tmp_path / 'student.pth')
    config = tiny_seg.run_config(tmp_path, distill=tiny_seg.block(dict(type='PairWise')))
    item = tiny_seg.TinyMaps()[0]
    [(_, maps, measure)] = drawn(
        features.feature_pictures,
        config=config,
        students={'distilled': str(tmp_path / 'student.pth')},
        images={Path('a'): features.Shown(item)},
    )
    assert not measure.of_values and torch.isfinite(maps['distilled'][0]).all()


@pytest.mark.parametrize('which', ['file', 'index'])
def test_predictions_have_the_truth_where_it_is_known(folder: Path, images: list[str], which: str) -> None:
    out = folder / f'predictions_{which}.png'
    chosen = ['--image', images[0]] if which == 'file' else ['--image-index', 1]
    with mock.patch.object(predictions, 'save', lambda figure, out: figure.savefig(out) or out), mock.patch.object(
        predictions, 'prediction_grid', wraps=predictions.prediction_grid
    ) as grid:
        draw('predictions', folder / 'fgd.py', distilled(folder), *chosen, '--out', out)
    assert grid.call_args.kwargs == dict(truth=which == 'index')
    assert [title for title, _ in grid.call_args.args[1]] == ['teacher', 'distilled']
    assert width(out) == 900


def test_areas_command(folder: Path) -> None:
    out = folder / 'areas.png'
    assert draw('areas', folder / 'fgd.py', '--image-index', 2, '--out', out) == 0
    assert width(out) == int(100 * (2.3 * 4 + 0.9))


def test_classes_need_no_data(folder: Path) -> None:
    config = Config.fromfile(folder / 'fgd.py')
    config.test_dataloader.dataset.data_root = 'nowhere'
    assert 'star' in metainfo(config)['classes']
    config.test_dataloader.dataset.metainfo = dict(classes=('a', 'b'))
    found = metainfo(config)
    assert found['classes'] == ('a', 'b') and len(found['palette']) == 2


def test_classes_of_a_stock_type_in_a_process_that_has_read_no_data() -> None:
    plain = dict(type='CocoDataset', metainfo=dict(classes=('red', 'white')))
    repeated = dict(type='RepeatDataset', times=2, dataset=plain)
    joined = dict(type='ConcatDataset', datasets=[repeated, plain])
    code = (
        'from mmengine.config import Config; from mmengine.registry import init_default_scope; '
        'from mmkd_plugin.study.pictures.predictions import metainfo; init_default_scope("mmdet")\n'
        f'for one in {[plain, repeated, joined]}: '
        'print(metainfo(Config(dict(test_dataloader=dict(dataset=one))))["classes"])'
    )
    told = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout
    assert told.splitlines()[-3:] == 3 * ["('red', 'white')"]


def test_each_of_several_images_has_a_file() -> None:
    files = picture_files(Path('x/out.png'), ['a', 'b', 'a'])
    assert [file.name for file in files] == ['out_a.png', 'out_b.png', 'out_a_2.png']
    assert picture_files(Path('x/out.png'), ['a']) == [Path('x/out.png')]


def other_model(folder: Path) -> Path:
    state = build_model(Config.fromfile(ROOT / 'configs/coco_mini/pspnet_r18.py')).state_dict()
    torch.save(dict(state_dict=state), folder / 'other.pth')
    return folder / 'other.pth'


def other_block(folder: Path) -> Path:
    file = torch.load(distilled(folder), weights_only=False)
    file[STATE_KEY] = {key: value for key, value in file[STATE_KEY].items() if 'level2' not in key}
    torch.save(file, folder / 'other_block.pth')
    return folder / 'other_block.pth'


def pspnet_teacher(folder: Path) -> Path:
    cfg = Config.fromfile(folder / 'fgd.py')
    cfg.distill.teacher, cfg.distill.teacher_ckpt = tiny_seg.pspnet(), 'random'
    cfg.dump(folder / 'seg_teacher.py')
    return folder / 'seg_teacher.py'


SEG = ROOT / 'configs/coco_mini/pixel_pair_pspnet_r34_to_r18.py'
MISTAKES: dict[str, tuple[Any, str]] = {
    'missing image': (lambda f, i: ['attention', f / 'fgd.py', '--image', f / 'no.png'], r'no\.png" does not exist'),
    'no image': (lambda f, i: ['attention', f / 'fgd.py', '--image', f / 'fgd.py'], 'cannot be read as an image'),
    'areas without FGD': (lambda f, i: ['areas', ROOT / 'configs/coco_mini/fgi_retina_r34_to_r18.py'], 'has no FGD'),
    'areas of a segmentor': (lambda f, i: ['areas', SEG], 'has no FGD in its distill block'),
    'no such training image': (
        lambda f, i: ['areas', f / 'fgd.py', '--image-index', 9],
        'has 4 images, so there is no',
    ),
    'no such test image': (lambda f, i: ['attention', f / 'fgd.py', '--image-index', -1], 'test data has 2 images'),
    'no distill block': (
        lambda f, i: ['attention', ROOT / 'configs/coco_mini/retina_r18.py', '--image', i[0]],
        'no distill block, so there is no teacher to compare with',
    ),
    'no student': (lambda f, i: ['features', f / 'fgd.py', '--image', i[0]], 'needs a student'),
    'other model': (
        lambda f, i: ['features', f / 'fgd.py', other_model(f), '--image', i[0]],
        r'other\.pth" is not one of the RetinaNet of the config',
    ),
    'other model predicts': (
        lambda f, i: ['predictions', f / 'fgd.py', other_model(f), '--image', i[0]],
        r'other\.pth" is not one of the RetinaNet of the config',
    ),
    'other block': (
        lambda f, i: ['attention', f / 'fgd.py', other_block(f), '--image', i[0]],
        'had another connector than "loss_fgd_level2"',
    ),
    'unknown method': (
        lambda f, i: ['attention', f / 'fgd.py', '--method', 'fdg', '--image', i[0]],
        'No method "fdg" of the distill block compares maps: did you mean "fgd"',
    ),
    'teacher of another task': (
        lambda f, i: ['predictions', pspnet_teacher(f), '--image', i[0]],
        'The teacher, EncoderDecoder, is no model for detection as the student is',
    ),
    'nobody to ask': (
        lambda f, i: ['predictions', ROOT / 'configs/coco_mini/retina_r18.py', '--image', i[0]],
        'nobody to ask; give a checkpoint',
    ),
    'over the image': (lambda f, i: ['attention', f / 'fgd.py', '--image', i[0], '--out', i[0]], 'is the image itself'),
}


@pytest.mark.parametrize('mistake', MISTAKES)
def test_mistake_is_one_sentence(
    folder: Path, images: list[str], mistake: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, fault = MISTAKES[mistake]
    with pytest.raises(SystemExit) as ended:
        draw(*arguments(folder, images))
    assert ended.value.code == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith('error: ') and re.search(fault, said)
