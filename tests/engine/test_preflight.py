"""What would fail in the depths of torch or MMEngine is told with its fix."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from _helpers import tiny, tiny_seg
from _helpers.tiny import block, build, run_config

from mmkd_plugin.engine import DistillRunner, FlexibleDistillRunner
from mmkd_plugin.engine.preflight import told_in_a_sentence
from mmkd_plugin.errors import DistillError

AMP = dict(type='AmpOptimWrapper', optimizer=dict(type='SGD', lr=0.01))
ONE_IMAGE = dict(batch_size=1, num_workers=0, sampler=dict(type='InfiniteSampler'), dataset=dict(type='TinyMaps'))


def test_strategy_brings_its_own_runner(tmp_path: Path) -> None:
    runner = build(run_config(tmp_path, iterations=1, distill=block(), strategy=dict(type='FSDPStrategy')))
    assert type(runner) is FlexibleDistillRunner
    runner.train()


def test_strategy_is_refused_where_it_would_be_ignored(tmp_path: Path) -> None:
    class Own(DistillRunner):
        pass

    cfg = run_config(tmp_path, iterations=1, distill=block(), strategy=dict(type='FSDPStrategy'))
    cfg.experiment_name = 'own'
    with pytest.raises(DistillError, match=r'sets strategy \(FSDPStrategy\), which DistillRunner does not read'):
        Own.from_cfg(cfg).train()


@pytest.mark.parametrize(
    ('setting', 'instead'),
    [
        (dict(sync_bn='torch'), r'write strategy=dict\(sync_bn='),
        (dict(model_wrapper_cfg=dict(type='MMDistributedDataParallel')), r'write strategy=dict\(model_wrapper='),
        (dict(find_unused_parameters=True), 'leave it out'),
    ],
)
def test_settings_that_strategies_have_themselves(tmp_path: Path, setting: dict, instead: str) -> None:
    cfg = run_config(tmp_path, iterations=1, distill=block(), strategy=dict(type='DDPStrategy'), **setting)
    with pytest.raises(DistillError, match=f'FlexibleDistillRunner does not read; {instead}'):
        build(cfg).train()


@pytest.mark.skipif(torch.cuda.is_available(), reason='mixed precision works on a GPU')
@pytest.mark.parametrize('distill', [None, block()], ids=['stock', 'distilled'])
def test_mixed_precision_without_a_gpu(tmp_path: Path, distill: dict | None) -> None:
    cfg = run_config(tmp_path, distill=distill, optim_wrapper=copy.deepcopy(AMP))
    with pytest.raises(DistillError, match=r"needs a GPU, and none is visible; set optim_wrapper.type='OptimWrapper'"):
        build(cfg).train()


@pytest.mark.parametrize('distill', [None, tiny_seg.block(dict(type='PixelWise'))], ids=['stock', 'distilled'])
def test_batch_norm_of_one_value(tmp_path: Path, distill: dict | None) -> None:
    cfg = tiny_seg.run_config(tmp_path, distill=distill, train_dataloader=ONE_IMAGE)
    with pytest.raises(DistillError, match=r'batch holds one image; set train_dataloader\.batch_size to 2 or more'):
        tiny.build(cfg).train()


@pytest.mark.parametrize('error', [ValueError('another'), AssertionError('another'), AssertionError()])
def test_other_errors_stay_as_they_are(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, told_in_a_sentence():
        raise error
    assert caught.value is error
