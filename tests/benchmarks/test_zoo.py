"""The zoo sweep: what it makes of configs, how it keeps results, and what it writes."""

from __future__ import annotations

import dataclasses
import json
import signal

import pytest
import torch
from mmengine.config import Config
from rich.progress import Progress

from benchmarks.zoo import sweep as sweep_module
from benchmarks.zoo.page import page, summary
from benchmarks.zoo.sweep import Family, Limits, families, sweep, zoo_folder
from benchmarks.zoo.trial import FAILS, LEFT_OUT, STOCK, WORKS, OneStep, Trial, _compare, try_config
from benchmarks.zoo.wider import wider
from mmkd_plugin.compat.stacks import distribution_of, read_stacks
from mmkd_plugin.errors import DistillError

pytestmark = pytest.mark.slow


def zoo(name: str, package: str = 'mmdet') -> Config:
    return Config.fromfile(zoo_folder(package) / name)


@pytest.mark.parametrize(
    ('package', 'config', 'methods'),
    [
        ('mmdet', 'yolox/yolox_nano_8xb8-300e_coco.py', {'FGD': WORKS, 'FGI': '-'}),
        ('mmdet', 'qdtrack/qdtrack_faster-rcnn_r50_fpn_4e_base.py', {'FGD': WORKS, 'FGI': WORKS}),
        ('mmseg', 'cgnet/cgnet_fcn_4xb4-60k_cityscapes-680x680.py', {'PixelWise': WORKS, 'PairWise': WORKS}),
    ],
)
def test_a_config_is_tried(package, config, methods):
    trial = try_config(package, config)
    assert (trial.outcome, trial.methods, trial.reason) == (WORKS, methods, '')


def test_what_cannot_be_tried_is_told_apart():
    assert try_config('mmdet', 'yolox/yolox_tta.py').outcome == LEFT_OUT
    assert try_config('mmdet', 'cornernet/cornernet_hourglass104_10xb5-crop511-210e-mstest_coco.py').outcome == LEFT_OUT
    assert try_config('mmdet', 'reid/reid_r50_8xb32-6e_mot15train80_test-mot15val20.py').outcome == LEFT_OUT
    clip = try_config('mmseg', 'san/san-vit-b16_coco-stuff164k-640x640.py')
    assert (clip.outcome, clip.reason) == (STOCK, 'needs the weights of CLIP, which cannot be fetched here')
    absent = try_config('mmdet', 'yolox/absent.py')
    assert absent.outcome == STOCK and 'cannot be read' in absent.reason


def test_faults_of_ours_are_no_faults_of_the_stock_model(monkeypatch):
    def one_step(cfg, package, size):
        if 'distill' in cfg:
            raise DistillError('No level.')
        return OneStep({'loss': 1.0}, 3)

    monkeypatch.setattr('benchmarks.zoo.trial.one_step', one_step)
    trial = try_config('mmdet', 'yolox/yolox_nano_8xb8-300e_coco.py')
    assert (trial.outcome, trial.methods['FGD'], trial.reason) == (FAILS, 'No level.', 'FGD: No level. FGI: No level.')


@pytest.mark.parametrize(
    ('distilled', 'said'),
    [
        ({'loss': 3.0, 'loss_cls': 1.0, 'distill.loss_fgd': 2.0}, WORKS),
        ({'loss': 3.0, 'loss_cls': 1.1, 'distill.loss_fgd': 2.0}, "the student's own loss_cls is 1.1 instead of 1"),
        ({'loss': 3.0, 'distill.loss_fgd': 2.0}, "the student's own loss_cls is nan instead of 1"),
        ({'loss': 1.0, 'loss_cls': 1.0}, 'the distillation terms are missing or not finite'),
    ],
)
def test_distillation_leaves_the_students_losses_alone(distilled, said):
    assert _compare({'loss': 1.0, 'loss_cls': 1.0}, distilled) == said


def test_wider_teachers():
    model = wider(zoo('faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py').model)
    assert (model.neck.out_channels, model.rpn_head.in_channels, model.roi_head.bbox_head.in_channels) == (384,) * 3
    assert model.neck.in_channels == [256, 512, 1024, 2048] and model.backbone.depth == 50
    head = wider(zoo('pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024.py', 'mmseg').model).decode_head
    assert (head.channels, head.in_channels) == (768, 2048)
    assert wider(zoo('ssd/ssd300_coco.py').model) is None


def test_families():
    found = families('mmdet', ['retinanet'])
    assert list(found) == ['retinanet'] and found['retinanet'][0].startswith('retinanet/retinanet_r18')
    assert '_base_' not in families('mmseg')
    with pytest.raises(DistillError, match='"retinanets" is no family.*retinanet'):
        families('mmdet', ['retinanets'])
    with pytest.raises(DistillError, match='no installed package'):
        zoo_folder('mmpose')


def end_by_signal(package, name, result, *rest):
    signal.raise_signal(signal.SIGKILL)


@pytest.mark.parametrize(
    ('limits', 'reason'), [(Limits(seconds=0.01), 'not done in 0.01 seconds'), (Limits(), 'SIGKILL')]
)
def test_a_crash_or_a_hang_does_not_end_the_sweep(tmp_path, monkeypatch, limits, reason):
    monkeypatch.setattr(sweep_module.multiprocessing, 'get_context', lambda kind: _Fork())
    monkeypatch.setattr(sweep_module, 'try_and_write', end_by_signal)
    with Progress(disable=True) as progress:
        (family,) = sweep('mmdet', {'a': ['a/b.py']}, tmp_path, progress, limits=limits)
    assert family.result.outcome == FAILS and reason in family.result.reason


class _Fork:
    """Processes without a start-up time."""

    def __init__(self):
        import multiprocessing.context

        self.Process = multiprocessing.context.ForkProcess

    def set_forkserver_preload(self, names):
        pass


def test_results_are_kept_and_one_that_decides_is_enough(tmp_path):
    trials = [Trial('a/1.py', STOCK, 'no CUDA'), Trial('a/2.py', WORKS), Trial('a/3.py', FAILS, 'ours')]
    for trial in trials:
        (tmp_path / trial.config.replace('/', '__')).with_suffix('.json').write_text(
            json.dumps(dataclasses.asdict(trial))
        )
    chosen = {'a': [trial.config for trial in trials]}
    with Progress(disable=True) as progress:
        (some,) = sweep('mmdet', chosen, tmp_path, progress)
        (every,) = sweep('mmdet', chosen, tmp_path, progress, every=True)
    assert some == Family('a', tuple(trials[:2])) and some.result.outcome == WORKS
    assert every.result.reason == 'ours'


def test_page():
    found = [
        Family('a', (Trial('a/x.py', WORKS, methods={'FGD': WORKS, 'FGI': '-'}, teacher='same width'),)),
        Family('b', (Trial('b/x.py', FAILS, 'FGD: no | level', methods={'FGD': 'no | level', 'FGI': WORKS}),)),
        Family('c', (Trial('c/x.py', LEFT_OUT, 'no neck'), Trial('c/y.py', STOCK, 'needs CUDA'))),
        Family('d', (Trial('d/x.py', LEFT_OUT, 'no neck'),)),
    ]
    assert summary(found).startswith('1 of 2 families that train alone can be distilled (50.0 %); 1 cannot')
    text = page('mmdet', found)
    assert '| a | works | works | - | same width | `x.py` |  |' in text
    assert '| b | does not work | no | works | - | `x.py` | FGD: no \\| level |' in text
    assert '| c | stock cannot train | - | - | - | `y.py` | needs CUDA |' in text
    assert torch.__version__ in text and 'more families of the zoo have not been tried yet' in text


@pytest.mark.parametrize(('stack', 'command'), [('default', 'make zoo`'), ('forks', 'make zoo STACK=forks`')])
def test_a_page_tells_its_stack(monkeypatch, stack, command):
    chosen = read_stacks()[stack]
    installed = {chosen.distribution('mmcv'): '2.9.9', 'timm': '1.0', distribution_of(chosen.optional[0]): ''}
    monkeypatch.setattr('benchmarks.zoo.page.installed_stack', lambda: chosen)
    monkeypatch.setattr('benchmarks.zoo.page._version', lambda name: installed.get(name, ''))
    text = page('mmseg', [])
    assert f'Written by `{command} on a CPU, in the stack `{stack}` ({chosen.about})' in text
    assert f'{chosen.distribution("mmcv")} 2.9.9' in text
    assert 'Optional packages: timm 1.0, no torchvision' in text
