"""Every loss in MMRazor's own algorithm and distiller, from a config written by hand with the plugin's recorders."""

from __future__ import annotations

import copy
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from _helpers import tiny, tiny_seg
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

import mmkd_plugin.registry  # noqa: F401

NECK = dict(type='mmkd_plugin.ModuleOutput', source='neck')
LOGITS = dict(type='mmkd_plugin.ModuleOutput', source='decode_head.conv_seg')
AUX = dict(type='mmkd_plugin.ModuleOutput', source='auxiliary_head.conv_seg')
BOTTLENECK = dict(type='mmkd_plugin.ModuleOutput', source='decode_head.bottleneck')


def ours(recorder: str, **options: Any) -> dict:
    return dict(recorder=recorder, from_student=True, **options)


def theirs(recorder: str, **options: Any) -> dict:
    return dict(recorder=recorder, from_student=False, **options)


def facts(*names: str) -> dict:
    return {name: ours('batch', data_idx=name) for name in names}


BATCH = dict(type='mmkd_plugin.Batch')
SAMPLES = dict(type='mmkd_plugin.AnchorSamples', source='bbox_head')
SAMPLED = ours('samples', data_idx='avg_factor')
DISTILLERS: dict[str, tuple[str, dict]] = {
    'FGDLoss': (
        'detector',
        dict(
            student_recorders=dict(neck=NECK, batch=BATCH),
            teacher_recorders=dict(neck=NECK),
            connectors=dict(adapt=dict(type='mmkd_plugin.ConvConnector', in_channels=16, out_channels=24)),
            distill_losses=dict(loss_fgd=dict(type='mmkd_plugin.FGDLoss', channels=24)),
            loss_forward_mappings=dict(
                loss_fgd=dict(
                    student=ours('neck', data_idx=0, connector='adapt'),
                    teacher=theirs('neck', data_idx=0),
                    **facts('boxes', 'valid', 'image_shapes'),
                )
            ),
        ),
    ),
    'FGILoss': (
        'detector of the same width',
        dict(
            student_recorders=dict(neck=NECK, batch=BATCH, priors=dict(type='mmkd_plugin.Priors', source='neck')),
            teacher_recorders=dict(neck=NECK),
            distill_losses=dict(loss_fgi=dict(type='mmkd_plugin.FGILoss')),
            loss_forward_mappings=dict(
                loss_fgi=dict(
                    student=ours('neck'), teacher=theirs('neck'), priors=ours('priors'), **facts('boxes', 'valid')
                )
            ),
        ),
    ),
    'Chen': (
        'detector of the same width',
        dict(
            student_recorders=dict(neck=NECK, samples=SAMPLES),
            teacher_recorders=dict(neck=NECK, says=dict(type='mmkd_plugin.AnchorPredictions', head='bbox_head')),
            distill_losses=dict(
                loss_cls=dict(type='mmkd_plugin.ChenClassificationLoss', sigmoid=True),
                loss_reg=dict(type='mmkd_plugin.ChenRegressionLoss'),
                loss_hint=dict(type='mmkd_plugin.ChenHintLoss'),
            ),
            loss_forward_mappings=dict(
                loss_cls=dict(
                    student=ours('samples', data_idx='logits'),
                    teacher=theirs('says', data_idx='logits'),
                    weight=ours('samples', data_idx='label_weights'),
                    avg_factor=SAMPLED,
                    images=ours('samples', data_idx='images'),
                    sampled=ours('samples', data_idx='sampled'),
                ),
                loss_reg=dict(
                    student=ours('samples', data_idx='boxes'),
                    teacher=theirs('says', data_idx='boxes'),
                    target=ours('samples', data_idx='targets'),
                    weight=ours('samples', data_idx='box_weights'),
                    avg_factor=SAMPLED,
                ),
                loss_hint=dict(student=ours('neck', data_idx=0), teacher=theirs('neck', data_idx=0)),
            ),
        ),
    ),
    'PixelWiseLoss': (
        'segmentor',
        dict(
            student_recorders=dict(logits=LOGITS),
            teacher_recorders=dict(logits=LOGITS),
            distill_losses=dict(loss_pixel=dict(type='mmkd_plugin.PixelWiseLoss')),
            loss_forward_mappings=dict(loss_pixel=dict(student=ours('logits'), teacher=theirs('logits'))),
        ),
    ),
    'PairWiseLoss': (
        'segmentor',
        dict(
            student_recorders=dict(feature=BOTTLENECK),
            teacher_recorders=dict(feature=BOTTLENECK),
            distill_losses=dict(loss_pair=dict(type='mmkd_plugin.PairWiseLoss')),
            loss_forward_mappings=dict(loss_pair=dict(student=ours('feature'), teacher=theirs('feature'))),
        ),
    ),
    'HolisticLoss': (
        'segmentor',
        dict(
            student_recorders=dict(logits=LOGITS, batch=BATCH),
            teacher_recorders=dict(logits=LOGITS),
            distill_losses=dict(loss_holistic=dict(type='mmkd_plugin.HolisticLoss', num_classes=3, widths=(8, 8))),
            loss_forward_mappings=dict(
                loss_holistic=dict(student=ours('logits'), teacher=theirs('logits'), **facts('image'))
            ),
        ),
    ),
    'PSPNetKDLoss': (
        'segmentor',
        dict(
            student_recorders=dict(logits=LOGITS, aux=AUX),
            teacher_recorders=dict(logits=LOGITS, aux=AUX),
            distill_losses=dict(loss_kd=dict(type='mmkd_plugin.PSPNetKDLoss')),
            loss_forward_mappings=dict(
                loss_kd=dict(
                    student=ours('logits'),
                    teacher=theirs('logits'),
                    student_aux=ours('aux'),
                    teacher_aux=theirs('aux'),
                )
            ),
        ),
    ),
}


def stock(name: str) -> tuple[dict, dict]:
    """MMRazor's algorithm, and a run's other settings."""
    kind, distiller = copy.deepcopy(DISTILLERS[name])
    if kind == 'segmentor':
        student, teacher = tiny_seg.pspnet(), tiny_seg.pspnet(24)
    else:
        student, teacher = tiny.retinanet(), tiny.retinanet(16 if kind.endswith('width') else 24)
    model = dict(
        type='mmrazor.SingleTeacherDistill',
        architecture=student,
        teacher=teacher,
        distiller=dict(type='mmrazor.ConfigurableDistiller', **distiller),
    )
    return model, (tiny_seg if kind == 'segmentor' else tiny).run_config('unused')


def test_every_loss_has_a_config():
    from mmkd_plugin.methods import DistillLoss

    used = {loss['type'] for _, distiller in DISTILLERS.values() for loss in distiller['distill_losses'].values()}
    registered = {
        f'mmkd_plugin.{key}'
        for key, part in mmkd_plugin.registry.MODELS.module_dict.items()
        if isinstance(part, type) and issubclass(part, DistillLoss) and part.__module__.startswith('mmkd_plugin')
    }
    assert used == registered


@pytest.mark.parametrize('name', DISTILLERS)
def test_a_run_of_mmrazor(name, tmp_path):
    model, cfg = stock(name)
    cfg = type(cfg)({**cfg, 'model': model, 'work_dir': str(tmp_path)})
    cfg.pop('runner_type')
    runner = tiny.build(cfg)
    assert type(runner).__module__ == 'mmengine.runner.runner'
    before = {key: value.clone() for key, value in runner.model.architecture.state_dict().items()}
    runner.train()
    for loss in DISTILLERS[name][1]['distill_losses']:
        values = tiny.losses_of(runner, f'distill.{loss}')
        assert all(math.isfinite(value) for value in values) and any(values)
    after = runner.model.architecture.state_dict()
    assert any(not torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize('name', ['FGDLoss', 'PixelWiseLoss', 'HolisticLoss'])
def test_gradients_reach_student_and_loss(name):
    model, cfg = stock(name)
    init_default_scope(cfg.default_scope)
    algorithm = MODELS.build(model)
    algorithm.train()
    helper = tiny_seg if cfg.default_scope == 'mmseg' else tiny
    data = helper.batch(algorithm.architecture)
    losses = algorithm.loss(data['inputs'], data['data_samples'])
    sum(value for key, value in losses.items() if key.startswith('distill.')).backward()
    first = next(iter(algorithm.architecture.backbone.parameters()))
    assert first.grad is not None and first.grad.any()
    if name == 'HolisticLoss':
        discriminator = algorithm.distiller.distill_losses['loss_holistic'].discriminator
        assert all(parameter.grad is not None for parameter in discriminator.stages.parameters())


def test_a_plain_script_imports_mmrazor():
    code = 'import mmkd_plugin, mmrazor.models; print(mmrazor.models.SingleTeacherDistill.__name__)'
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, cwd=Path(__file__).resolve().parents[2]
    )
    assert done.stdout.strip() == 'SingleTeacherDistill', done.stderr


def test_the_config_of_the_page(tmp_path):
    """It is built as it stands, but for the weights of the teacher, and gives a term."""
    page = (Path(__file__).resolve().parents[2] / 'docs/mmrazor.md').read_text()
    path = tmp_path / 'page.py'
    path.write_text(page.split('```python\n')[1].split('```')[0])
    cfg = Config.fromfile(path)
    cfg.model.pop('teacher_ckpt')
    init_default_scope('mmdet')
    algorithm = MODELS.build(cfg.model)
    algorithm.train()
    data = tiny.batch(algorithm.architecture, (1, 3))
    losses = algorithm.loss(data['inputs'], data['data_samples'])
    assert torch.isfinite(losses['distill.loss_fgd']) and losses['distill.loss_fgd'] > 0


def test_the_page_names_every_loss():
    page = (Path(__file__).resolve().parents[2] / 'docs/mmrazor.md').read_text()
    names = {loss['type'].split('.')[1] for _, item in DISTILLERS.values() for loss in item['distill_losses'].values()}
    assert all(f'`{name}`' in page for name in names)
