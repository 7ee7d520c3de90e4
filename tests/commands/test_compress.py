"""``mmkd compress``: a smaller model that stock code builds and loads, that trains distilled, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')
pytest.importorskip('tensorly')

from mmkd_plugin.__main__ import main
from mmkd_plugin.cli import build_runner
from mmkd_plugin.datasets.coco_mini import MiniSettings, ensure_coco_mini
from mmkd_plugin.errors import DistillError
from mmkd_plugin.study.compress import compress
from mmkd_plugin.study.factored_config import FACTORED, image_size
from mmkd_plugin.study.pictures.canvas import build_model

ROOT = Path(__file__).resolve().parents[2]
BOX_HEAD = 'roi_head.bbox_head'
STOCK = """
import sys
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner.checkpoint import load_checkpoint

for folder, name in (('mmdet', 'retina_r18'), ('mmseg', 'pspnet_r18')):
    cfg = Config.fromfile(f'{name}_tucker.py')
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model)
    load_checkpoint(model, cfg.load_from, strict=True)
    print('built', type(model).__module__.split('.')[0], type(model.backbone).__name__, cfg.get('distill'))
"""


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of small models, and the data that they train on."""
    folder = tmp_path_factory.mktemp('compress')
    ensure_coco_mini(folder / 'data/coco_mini', MiniSettings(train=8, val=2), report=lambda line: None)
    annotations = json.loads((folder / 'data/coco_mini/annotations/instances_train.json').read_text())
    classes = tuple(item['name'] for item in annotations['categories'])
    torch.manual_seed(0)
    for name in ('retina_r18', 'faster-rcnn_r18', 'pspnet_r18'):
        model = build_model(config(name))
        meta = dict(dataset_meta=dict(classes=classes), epoch=3)
        torch.save(dict(meta=meta, state_dict=model.state_dict()), folder / f'{name}.pth')
    return folder


@pytest.fixture(autouse=True)
def inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths are those of the folder."""
    monkeypatch.chdir(folder)


def config(name: str) -> Config:
    return Config.fromfile(ROOT / f'configs/coco_mini/{name}.py')


def run(name: str, *options: str, out: str = '.') -> None:
    assert main(['compress', f'mmkd_plugin::coco_mini/{name}.py', f'{name}.pth', out, *options]) == 0


def features(model: Any) -> list[torch.Tensor]:
    with torch.no_grad():
        return list(model.extract_feat(torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))))


def test_stock_code_builds_and_loads_what_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ('retina_r18', 'pspnet_r18'):
        run(name, '--ranks', '0.5')
    backbone = config('pspnet_r18').model.backbone.type
    shown = capsys.readouterr().out
    assert 'Unsupported operator' not in shown
    assert 'Left as it is, 1 x 1: backbone.layer2.0.downsample.0' in shown
    assert shown.count('Parameters: ') == shown.count('FLOPs on an image of ') == 2
    assert 'not known' not in shown
    done = subprocess.run([sys.executable, '-c', STOCK], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    built = [line for line in done.stdout.splitlines() if line.startswith('built')]
    assert built == ['built mmdet ResNet None', f'built mmseg {backbone} None']
    stored = torch.load('retina_r18_tucker.pth', weights_only=False)
    assert stored['meta'] == dict(dataset_meta=torch.load('retina_r18.pth', weights_only=False)['meta']['dataset_meta'])


def test_a_compressed_model_is_distilled(tmp_path: Path) -> None:
    run('retina_r18', '--ranks', '0.5', out='student')
    written = tmp_path / 'distilled.py'
    written.write_text(
        f"_base_ = ['{Path('student/retina_r18_tucker.py').resolve()}', 'mmkd_plugin::_base_/chen/one_stage.py']\n"
        "distill = dict(teacher='mmkd_plugin::coco_mini/retina_r18.py', teacher_ckpt='retina_r18.pth')\n"
    )
    cfg = Config.fromfile(written)
    cfg.merge_from_dict(
        {
            'work_dir': str(tmp_path / 'run'),
            'train_cfg.max_iters': 2,
            'train_cfg.val_interval': 10,
            'train_dataloader.batch_size': 2,
            'train_dataloader.num_workers': 0,
            'train_dataloader.persistent_workers': False,
            'default_hooks.checkpoint.interval': 2,
        }
    )
    build_runner(cfg).train()
    before = torch.load('student/retina_r18_tucker.pth', weights_only=False)['state_dict']
    after = torch.load(tmp_path / 'run/iter_2.pth', weights_only=False)['state_dict']
    assert after.keys() == before.keys()
    core = 'backbone.layer4.1.conv2.core.weight'
    change = (after[core] - before[core]).abs().max()
    # It goes on from the factors: two steps of a warm-up move them by little.
    assert 0 < change < 0.05 * before[core].abs().max()


def test_full_ranks_are_the_model_itself() -> None:
    plain = config('faster-rcnn_r18')
    model = build_model(plain)
    model.load_state_dict(torch.load('faster-rcnn_r18.pth', weights_only=False)['state_dict'])
    full: dict[str, Any] = {
        'backbone.conv1': (3, 16),
        'backbone.layer2.0.conv1': (16, 32),
        'neck.fpn_convs.1.conv': (24, 24),
        f'{BOX_HEAD}.shared_fcs.1': 128,
    }
    done = compress(plain, 'faster-rcnn_r18.pth', None, full)
    assert [layer.name for layer in done.layers] == list(full)
    assert all(layer.error < 1e-5 for layer in done.layers)
    for mine, other in zip(features(done.model), features(model)):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)
    rois = torch.rand(5, 24, 5, 5)
    with torch.no_grad():
        for mine, other in zip(done.model.roi_head.bbox_head(rois), model.roi_head.bbox_head(rois)):
            torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)
    # Products of full rank are larger.
    assert done.after.parameters > done.before.parameters


def test_each_part_of_the_config_holds_its_own_ranks() -> None:
    ranks: dict[str, Any] = {'backbone.layer4.0.conv2': (4, 8), f'{BOX_HEAD}.shared_fcs.0': 6}
    done = compress(config('faster-rcnn_r18'), 'faster-rcnn_r18.pth', None, ranks)
    model = done.config.model
    assert model.backbone.type == model.roi_head.bbox_head.type == FACTORED
    assert (model.backbone.of, model.roi_head.bbox_head.of) == ('ResNet', 'Shared2FCBBoxHead')
    assert dict(model.backbone.ranks) == {'layer4.0.conv2': (4, 8)}
    assert dict(model.roi_head.bbox_head.ranks) == {'shared_fcs.0': 6}
    assert model.backbone.depth == 18 and model.neck.type == 'FPN' and 'distill' not in done.config
    saved = sum(layer.before - layer.after for layer in done.layers)
    assert done.before.parameters - done.after.parameters == saved > 0
    assert done.before.flops and done.after.flops and done.after.flops < done.before.flops


def test_variational_bayes_is_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    teacher = 'mmkd_plugin::coco_mini/retina_r34'
    main(['compress', f'{teacher}.py', f'{teacher}.pth', 'vb', '--include', 'backbone.layer4.*', '--size', '64', '96'])
    shown = capsys.readouterr().out
    assert 'FLOPs on an image of 96 x 64' in shown
    written = Config.fromfile('vb/retina_r34_tucker.py')
    ranks = dict(written.model.backbone.ranks)
    assert set(ranks) == {f'layer4.{block}.conv{index}' for block in range(3) for index in (1, 2)}
    # Neither nothing nor everything: the weights have learnt something.
    assert all(1 < inner < 96 and 1 < outer < 192 for inner, outer in ranks.values())
    assert written.load_from == 'vb/retina_r34_tucker.pth'


def test_a_compressed_model_is_compressed_again() -> None:
    run('retina_r18', '--ranks', 'backbone.layer1.0.conv1=4,4', out='first')
    again = compress(
        Config.fromfile('first/retina_r18_tucker.py'), 'first/retina_r18_tucker.pth', 0.5, exclude=['backbone.layer1.*']
    )
    ranks = again.config.model.backbone.ranks
    assert ranks['layer1.0.conv1'] == (4, 4)
    assert ranks['layer4.0.conv1'] == (32, 64)
    assert again.left['backbone.layer1.1.conv1'] == 'excluded'


def test_the_block_of_a_distilled_config_is_left_out() -> None:
    done = compress(config('chen_retina_r34_to_r18'), 'retina_r18.pth', 0.5)
    assert 'distill' not in done.config and 'runner_type' not in done.config


def test_pretrained_weights_of_a_factored_part_are_not_read_again() -> None:
    plain = config('retina_r18')
    plain.model.backbone.init_cfg = dict(type='Pretrained', checkpoint='torchvision://resnet18')
    done = compress(plain, 'retina_r18.pth', None, {'backbone.layer4.0.conv2': (4, 8)})
    assert done.config.model.backbone.init_cfg is None
    assert plain.model.backbone.init_cfg is not None


def test_the_size_of_an_image_is_that_of_the_test_pipeline() -> None:
    plain = config('retina_r18')
    assert image_size(plain) == (128, 128)
    assert image_size(Config(dict(model=dict()))) == (800, 1333)


@pytest.mark.parametrize(
    ('options', 'sentence'),
    [
        (['--ranks', 'half'], '"half" is none of them; write for instance --ranks 0.5.'),
        (['--ranks', '1.5'], '"1.5" is none of them'),
        (['--ranks', '0.5', 'vbmf'], '--ranks has two rules for all layers, 0.5 and vbmf'),
        (['--ranks', 'backbone.conv1=a,b'], '"backbone.conv1=a,b" is none of them'),
        (['--ranks', 'backbone.conv1=1,2,3'], '"backbone.conv1=1,2,3" is none of them'),
        (['--ranks', 'backbone.conv1='], 'names no rank'),
        (['--ranks', 'backbone.conv1=99,8'], '99 is no rank for "backbone.conv1" of RetinaNet, which has 3 input'),
        (['--ranks', 'backbone.conv=1,8'], 'has no layer "backbone.conv" to factor: did you mean "backbone.conv1"'),
        (['--ranks', 'backbone.layer2.0.downsample.0=1,1'], 'cannot be factored, since it is 1 x 1'),
        (['--ranks', '1'], 'No layer of RetinaNet becomes smaller with --ranks 1.0 (3 1 x 1; 17 would not be smaller'),
        (['--include', 'trunk.*'], '--include trunk.* matches no convolution or fully-connected layer of RetinaNet'),
        (['--include', '*.downsample.0'], 'RetinaNet has nothing to factor among *.downsample.0 (3 1 x 1)'),
        (['--size', '0', '64'], '--size takes the height and width of an image, such as 600 1000'),
        (['--exclude', 'backbone.*'], 'RetinaNet has nothing to factor among backbone.* (20 excluded)'),
    ],
)
def test_what_does_not_fit_is_refused(options: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run('retina_r18', *options, out='refused')
    error = capsys.readouterr().err
    assert ended.value.code == 2
    assert error.startswith('error: ') and error.count('\n') == 1
    assert sentence in error
    assert not Path('refused').exists()


def test_a_checkpoint_that_does_not_fit_is_refused() -> None:
    plain = config('retina_r18')
    with pytest.raises(DistillError, match='"absent.pth" does not exist'):
        compress(plain, 'absent.pth')
    with pytest.raises(DistillError, match='is not one of the RetinaNet of the config'):
        compress(plain, 'pspnet_r18.pth')
    with pytest.raises(DistillError, match='holds no "model"'):
        compress(Config(dict(train_cfg=dict())), 'retina_r18.pth')
