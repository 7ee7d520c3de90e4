"""Trainings side by side in processes of their own, and under the instructions of older processors."""

from __future__ import annotations

import io
import json

import pytest
from _helpers import tiny_seg
from rich.console import Console

from mmkd_plugin.datasets.coco_mini import MiniSettings, ensure_coco_mini
from mmkd_plugin.errors import DistillError
from mmkd_plugin.study import trainings
from mmkd_plugin.study.runs import progress_bar
from mmkd_plugin.study.trainings import Training, require_instruction_sets, train_all


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp('trainings')
    data = ensure_coco_mini(folder / 'data', MiniSettings(train=4, val=2, size=64), report=lambda line: None)
    pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
    loader = dict(
        batch_size=2,
        num_workers=0,
        sampler=dict(type='InfiniteSampler', shuffle=True),
        dataset=dict(
            type='mmkd_plugin.CocoMiniSegDataset',
            data_root=str(data),
            data_prefix=dict(img_path='train', seg_map_path='semantic/train'),
            pipeline=pipeline,
        ),
    )
    # What a test registers, another process does not know.
    config = tiny_seg.run_config(folder, iterations=2, model=tiny_seg.pspnet(classes=7), train_dataloader=loader)
    evaluated = {**loader, 'sampler': dict(type='DefaultSampler', shuffle=False)}
    config.val_dataloader = config.test_dataloader = evaluated
    config.val_evaluator = config.test_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
    config.val_cfg, config.test_cfg = dict(type='ValLoop'), dict(type='TestLoop')
    config.train_cfg.val_interval = 2
    config.dump(folder / 'student.py')
    return str(folder / 'student.py')


def run(planned, jobs):
    out = io.StringIO()
    with progress_bar(Console(file=out, width=200)) as progress:
        return train_all(planned, progress, jobs), out.getvalue()


def test_two_at_a_time_give_what_one_after_the_other_gives(config, tmp_path):
    apart = [Training('mine', config, seed, str(tmp_path / f'apart{seed}')) for seed in (0, 1)]
    here = [Training('mine', config, seed, str(tmp_path / f'here{seed}')) for seed in (0, 1)]
    found, _ = run(apart, 2)
    expected, _ = run(here, 1)
    assert [outcome.seed for outcome in found] == [0, 1]
    assert [outcome.checkpoint_bytes for outcome in found] == [outcome.checkpoint_bytes for outcome in expected]
    again, said = run(apart, 2)
    assert again == found and said.count('done before') == 2


def test_instruction_sets_reach_the_process_and_the_record(config, tmp_path, monkeypatch):
    marks = {'avx2': {'ATEN_CPU_CAPABILITY': 'no such set'}}
    monkeypatch.setattr(trainings, 'INSTRUCTION_SETS', marks)
    # Torch refuses to begin with a set that does not exist, or warns of it: either way, the variable was there.
    try:
        [outcome], _ = run([Training('mine', config, 0, str(tmp_path), instructions='avx2')], 1)
    except DistillError as error:
        assert '"mine", seed 0' in str(error)
    else:
        assert outcome.instructions == 'avx2'


def test_a_set_of_its_own_is_a_run_of_its_own(config, tmp_path):
    names = ['', 'sse41'] if 'sse41' not in trainings._lacking() else ['']
    for name in names:
        [outcome], said = run([Training('mine', config, 0, str(tmp_path), instructions=name)], 1)
        assert outcome.instructions == name and 'done before' not in said
        assert json.loads((tmp_path / 'outcome.json').read_text())['instructions'] == name


def test_the_run_that_fails_is_named(config, tmp_path):
    good = Training('good', config, 0, str(tmp_path / 'good'))
    bad = Training('bad', config, 3, str(tmp_path / 'bad'), {'model.backbone.typo': 1})
    with pytest.raises(DistillError, match='The run "bad", seed 3, failed: .*typo'):
        run([good, bad], 2)


def test_unknown_sets_are_refused():
    with pytest.raises(DistillError, match='no instruction set "avx22": did you mean "avx2"'):
        require_instruction_sets(['avx22'])
    require_instruction_sets([])
