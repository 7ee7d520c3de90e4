"""A check finds what the training would find, counts what is there, and leaves nothing behind."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from _helpers import tiny, tiny_seg
from _helpers.tiny import block, build, retinanet, run_config
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, METRICS
from mmengine.runner import save_checkpoint

from mmkd_plugin.block import expand_config
from mmkd_plugin.engine.self_check import step_text
from mmkd_plugin.errors import DistillError
from mmkd_plugin.study import check as module
from mmkd_plugin.study.check import check
from mmkd_plugin.study.first_batches import BOXES, PIXELS
from mmkd_plugin.study.turns import SteppedRun

PKD = dict(type='Feature', loss=dict(type='PKDLoss'))


@pytest.fixture(autouse=True)
def trial_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where checks make their folders; torch keeps a cache of its own there too."""
    folder = tmp_path / 'temporary'
    folder.mkdir()
    monkeypatch.setattr(tempfile, 'tempdir', str(folder))
    # Asking for the versions of all compilers and laying out configs takes longer than such a run.
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)
    monkeypatch.setattr(Config, 'pretty_text', '')
    return folder


@HOOKS.register_module(force=True)
class NoteSteps(Hook):
    """Notes which model takes each step."""

    seen: list = []

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        images = [sample.img_id for sample in data_batch['data_samples']]
        self.seen.append((type(runner.model).__name__, batch_idx, runner.max_iters, images))


@METRICS.register_module(force=True)
class Scripted(BaseMetric):
    """Gives the values that a test has laid out, and counts the images."""

    values: list = []
    images: list = []

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results.append(len(data_samples))

    def compute_metrics(self, results: list) -> dict:
        self.images.append(sum(results))
        return dict(score=self.values.pop(0))


def validated(**changes: Any) -> dict:
    loader = dict(
        batch_size=2,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=dict(type='TinyBoxes', length=3),
    )
    return dict(val_dataloader=loader, val_evaluator=dict(type='Scripted'), val_cfg=dict(), **changes)


def checkpoint(path: Path, config: dict, classes: tuple[str, ...] = tiny.CLASSES) -> str:
    """Random weights of a model, with its classes."""
    from mmengine.registry import MODELS

    model = MODELS.build(copy.deepcopy(config))
    save_checkpoint(dict(state_dict=model.state_dict(), meta=dict(dataset_meta=dict(classes=classes))), str(path))
    return str(path)


def test_it_sees_the_first_step_of_the_training(tmp_path: Path, trial_folders: Path) -> None:
    """The run itself prints the same table, to the last digit."""
    cfg = run_config(tmp_path / 'work', iterations=3, distill=block())
    found = check(copy.deepcopy(cfg), steps=1)
    assert not (tmp_path / 'work').exists() and not list(trial_folders.glob('mmkd_check_*'))
    assert found.report is not None and found.distilled is not None and found.alone is not None
    runner = build(cfg)
    runner.train()
    log = '\n'.join(path.read_text() for path in (tmp_path / 'work').rglob('*.log'))
    assert step_text(found.report).strip() in log
    student = sum(item.numel() for item in runner.model.student.parameters())
    assert found.models['student'] == f'RetinaNet on ResNet-18, {student / 1e6:.2f} M parameters'
    assert found.warnings == [] and found.notes == []


def test_numbers_are_those_of_data_and_config(tmp_path: Path) -> None:
    """Image 0 has no box, the others have 1 + index % 3; in order they are 0, 1, 2, 3, ..."""
    loader = dict(
        batch_size=4,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=dict(type='TinyBoxes', length=10),
    )
    cfg = run_config(
        tmp_path, distill=block(), train_dataloader=loader, train_cfg=dict(by_epoch=True, max_epochs=7, val_interval=1)
    )
    found = check(cfg, steps=2)
    # 3 batches an epoch, of 4, 4 and 2 images.
    assert (found.images, found.batch_size, found.per_epoch, found.workers) == (10, 4, 3, 0)
    assert (found.iterations, found.epochs, found.steps, found.data.read) == (21, 7, 2, 3)
    assert found.truth.kind == BOXES and found.truth.counts == [0, 2, 3, 1, 2, 3, 1, 2, 3, 1]


def test_both_runs_take_the_same_batches_in_turns(tmp_path: Path) -> None:
    NoteSteps.seen = []
    cfg = run_config(tmp_path, iterations=90, distill=block(), custom_hooks=[dict(type='NoteSteps')])
    found = check(cfg, steps=3)
    one, other = 'DistillAlgorithm', 'RetinaNet'
    assert [name for name, *_ in NoteSteps.seen] == [one] * 2 + [other] * 2 + [one, other, other, one, one, other]
    distilled, alone = ([item[1:] for item in NoteSteps.seen if item[0] == name] for name in (one, other))
    assert distilled == alone and [index for index, *_ in alone] == [0, 1, 2, 3, 4]
    assert {total for _, total, _ in alone} == {90} and found.iterations == 90 and found.epochs is None
    cost, base = found.distilled, found.alone
    assert cost is not None and base is not None
    # The teacher is held, and its features are on top of it.
    teacher = build(cfg)
    teacher.add_distillation()
    weights = sum(item.numel() * item.element_size() for item in teacher.model.teacher.model.state_dict().values())
    assert cost.held - base.held >= weights
    assert cost.peak - cost.held > base.peak - base.held > 0


@pytest.mark.parametrize('accumulated', [1, 3])
def test_gradients_that_are_accumulated(tmp_path: Path, accumulated: int) -> None:
    """What is held is weighed where the optimizer has its momenta."""
    optim = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01, momentum=0.9))
    cfg = run_config(
        tmp_path, iterations=50, distill=block(), optim_wrapper=dict(optim, accumulative_counts=accumulated)
    )
    found = check(cfg, steps=1)
    weights = sum(item.numel() for item in build(run_config(tmp_path / 'x')).model.parameters())
    assert found.data.read == accumulated + 2 and found.alone is not None
    assert found.alone.held > 8 * weights


def test_a_run_of_one_step(tmp_path: Path) -> None:
    found = check(run_config(tmp_path, iterations=1, distill=block()), steps=5)
    assert found.steps == 1 and found.distilled is not None and found.distilled.peak > found.distilled.held


def test_nothing_is_saved_validated_or_shown_elsewhere(tmp_path: Path, trial_folders: Path) -> None:
    Scripted.values = []
    hook = dict(type='CheckpointHook', by_epoch=False, interval=1)
    cfg = run_config(
        tmp_path / 'work',
        distill=block(),
        default_hooks=dict(checkpoint=dict(hook, out_dir=str(tmp_path / 'elsewhere'))),
        custom_hooks=[dict(hook, out_dir=str(tmp_path / 'third'))],
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=4, val_interval=1),
        **validated(),
    )
    before = copy.deepcopy(cfg.to_dict())
    check(cfg, steps=1)
    assert [path.name for path in tmp_path.iterdir()] == ['temporary'] and not list(trial_folders.glob('mmkd_check_*'))
    assert cfg.to_dict() == before


def test_segmentor(tmp_path: Path) -> None:
    found = check(tiny_seg.run_config(tmp_path, distill=tiny_seg.block(dict(type='PixelWise'))), steps=1)
    assert found.truth.kind == PIXELS and set(found.truth.counts) == {60 * 64}
    assert found.models['teacher'].startswith('EncoderDecoder on ResNetV1c-18')
    assert found.warnings == []


def test_several_methods_and_teachers(tmp_path: Path) -> None:
    several = dict(
        teachers=dict(
            big=dict(teacher=retinanet(width=24), teacher_ckpt='random'),
            other=dict(teacher=retinanet(width=32, mean=[0.0, 0.0, 0.0]), teacher_ckpt='random'),
        ),
        methods=dict(fgd=dict(type='FGD', teacher='big'), pkd=dict(PKD, teacher='other')),
    )
    found = check(run_config(tmp_path, distill=several), steps=1)
    assert list(found.models) == ['student', 'teacher "big"', 'teacher "other"']
    assert found.report is not None and {row.loss[:8] for row in found.report.terms} == {'loss_fgd', 'loss_pkd'}
    assert len(found.notes) == 1 and found.notes[0].startswith('The teacher "other" normalises its images otherwise')


def test_expanded_config(tmp_path: Path) -> None:
    cfg = run_config(tmp_path, distill=block())
    terms = [row.value for row in check(cfg, steps=1).report.terms]  # type: ignore[union-attr]
    found = check(expand_config(cfg), steps=1)
    assert found.report is not None and [row.value for row in found.report.terms] == terms
    assert found.alone is not None and found.alone.held < found.distilled.held  # type: ignore[union-attr]


def test_weights_of_zero_train_the_student_alone(tmp_path: Path) -> None:
    cfg = run_config(tmp_path, distill=block(methods=dict(fgd=dict(type='FGD', loss_weight=0))))
    found = check(cfg, steps=1)
    assert found.distilled is None and found.report is None and found.alone is not None
    assert [warning for warning in found.warnings if warning.startswith('Distillation is off')] == found.warnings != []


@pytest.mark.parametrize('empty', [True, False])
def test_no_box(tmp_path: Path, empty: bool) -> None:
    cfg = run_config(tmp_path, distill=block())
    cfg.train_dataloader.dataset.empty = empty
    found = check(cfg, steps=1)
    said = any(warning.startswith('None of the 12 images that were read has a box') for warning in found.warnings)
    assert said is empty and (found.truth.without == found.truth.images) is empty


def test_no_labelled_pixel(tmp_path: Path) -> None:
    cfg = tiny_seg.run_config(tmp_path, distill=tiny_seg.block(dict(type='PixelWise')))
    cfg.train_dataloader.dataset.ignored = True
    warnings = check(cfg, steps=1).warnings
    assert any(warning.startswith('None of the 6 images that were read has a labelled pixel') for warning in warnings)


def test_teacher_of_other_classes(tmp_path: Path) -> None:
    teacher = retinanet(width=24)
    other = checkpoint(tmp_path / 'other.pth', teacher, classes=('square', 'pole'))
    distill = block(teacher=teacher, teacher_ckpt=other)
    found = check(run_config(tmp_path / 'work', distill=distill), steps=1)
    assert len(found.warnings) == 1
    assert found.warnings[0].startswith('The teacher was trained on other classes ("bar" against "pole")')
    by_class = {**distill, 'methods': dict(chen=dict(type='Chen'))}
    with pytest.raises(DistillError, match='so its heads mean something else'):
        check(run_config(tmp_path / 'work', distill=by_class), steps=1)


def test_teacher_of_another_normalisation(tmp_path: Path) -> None:
    teacher = retinanet(width=24, mean=[1.5, 2.5, 3.5], bgr_to_rgb=False)
    found = check(run_config(tmp_path, distill=block(teacher=teacher)), steps=1)
    assert found.warnings == [] and len(found.notes) == 1
    assert '(mean 1.5, 2.5, 3.5, std 50, 60, 70, channels as loaded)' in found.notes[0]
    assert '(mean 100, 110, 120, std 50, 60, 70, channels swapped)' in found.notes[0]


def test_teacher_whose_normalisation_is_not_known(tmp_path: Path) -> None:
    teacher = retinanet(width=24)
    del teacher['data_preprocessor']
    found = check(run_config(tmp_path, distill=block(teacher=teacher)), steps=1)
    assert found.notes == [] and len(found.warnings) == 1
    assert 'since the data_preprocessor of the teacher does not say how it normalises' in found.warnings[0]


@pytest.mark.parametrize(
    ('values', 'expected'),
    [
        ((0.5, 0.4), []),
        ((0.4, 0.5), ['The teacher is worse than the student on the validation data (score 40.0 against score 50.0)']),
        ((0.001, 0.5), ['The teacher has score 0.1 on the validation data, which is next to nothing']),
    ],
)
def test_teacher_against_the_student(tmp_path: Path, values: tuple, expected: list) -> None:
    Scripted.values, Scripted.images = list(values), []
    weights = checkpoint(tmp_path / 'student.pth', retinanet())
    cfg = run_config(tmp_path / 'work', distill=block(), **validated())
    found = check(cfg, steps=1, evaluate=True, student=weights)
    assert [(metric.role, metric.value) for metric in found.metrics] == [('teacher', values[0]), ('student', values[1])]
    assert Scripted.images == [3, 3] and Scripted.values == []
    assert (
        [warning.split(', so')[0][: len(expected[0])] for warning in found.warnings] == expected
        if expected
        else (found.warnings == [])
    )


def test_student_of_the_config_is_taken_where_it_fits(tmp_path: Path) -> None:
    Scripted.values = [0.5, 0.25, 0.5]
    cfg = run_config(tmp_path / 'work', distill=block(), **validated())
    cfg.load_from = checkpoint(tmp_path / 'student.pth', retinanet())
    assert [metric.value for metric in check(cfg, steps=1, evaluate=True).metrics] == [0.5, 0.25]
    # What a training may start from need not fill the model.
    torch.save(dict(state_dict={'backbone.conv1.weight': torch.zeros(8, 3, 7, 7)}), tmp_path / 'part.pth')
    cfg.load_from = str(tmp_path / 'part.pth')
    found = check(cfg, steps=1, evaluate=True)
    assert [metric.role for metric in found.metrics] == ['teacher']
    assert len(found.notes) == 1 and found.notes[0].startswith('The student is not evaluated: ')


def test_teacher_of_other_classes_is_not_evaluated(tmp_path: Path) -> None:
    Scripted.values = []
    teacher = retinanet(width=24)
    other = checkpoint(tmp_path / 'other.pth', teacher, classes=('square', 'pole'))
    cfg = run_config(tmp_path / 'work', distill=block(teacher=teacher, teacher_ckpt=other), **validated())
    found = check(cfg, steps=1, evaluate=True)
    assert found.metrics == [] and found.notes[0].startswith('The teacher is not evaluated')


def test_mistakes_are_sentences(tmp_path: Path, trial_folders: Path) -> None:
    cfg = run_config(tmp_path / 'work', distill=block())
    with pytest.raises(DistillError, match='no distill block, so there is nothing to check'):
        check(run_config(tmp_path / 'work'))
    with pytest.raises(DistillError, match='no validation data to evaluate the teacher on'):
        check(cfg, evaluate=True)
    with pytest.raises(DistillError, match=r'"nowhere\.pth" of the student does not exist'):
        check(run_config(tmp_path / 'work', distill=block(), **validated()), evaluate=True, student='nowhere.pth')
    without = copy.deepcopy(cfg)
    without.pop('optim_wrapper')
    with pytest.raises(DistillError, match='has no optim_wrapper, so it trains nothing'):
        check(without)
    stock = copy.deepcopy(cfg)
    stock.runner_type = 'Runner'
    with pytest.raises(DistillError, match='its runner is Runner, which does not read it'):
        check(stock, steps=1)
    mixed = copy.deepcopy(cfg)
    mixed.optim_wrapper.type = 'AmpOptimWrapper'
    if not torch.cuda.is_available():
        with pytest.raises(DistillError, match='AmpOptimWrapper trains in mixed precision, which needs a GPU'):
            check(mixed, steps=1)
    cfg.distill.methods.fgd = dict(type='FGD', schedule=dict(start=10**6))
    with pytest.raises(DistillError, match='so that it never begins'):
        check(cfg, steps=1)
    assert not list(trial_folders.glob('mmkd_check_*'))


@pytest.mark.parametrize('watched', [True, False])
def test_fault_of_the_first_step(tmp_path: Path, watched: bool) -> None:
    """It ends the check where it would end the run, and is a warning where the block lets it pass."""
    student = retinanet()
    student['backbone']['frozen_stages'] = 4
    tap = dict(PKD, tap='backbone.layer2')
    cfg = run_config(tmp_path, model=student, distill=block(methods=dict(pkd=tap), self_check=watched))
    if watched:
        with pytest.raises(DistillError, match='sends no gradient'):
            check(cfg, steps=1)
    else:
        assert any('sends no gradient' in warning for warning in check(cfg, steps=1).warnings)


def test_step_that_is_not_finite_is_kept(tmp_path: Path, trial_folders: Path) -> None:
    """Its sentence names the folder, which therefore stays."""
    cfg = run_config(tmp_path / 'work', distill=block())
    cfg.optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=1e30))
    with pytest.raises(DistillError, match=r'Iteration 2: .*"mmkd replay') as caught:
        check(cfg, steps=2)
    folder = Path(str(caught.value).split('"mmkd replay ')[1].split('"')[0])
    assert (folder / 'step.pth').is_file() and trial_folders in folder.parents


def test_too_little_memory_for_two_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The distilled run goes on alone."""
    stepped = SteppedRun.warm_up

    def warm_up(run: SteppedRun, steps: int) -> None:
        if type(run.runner.model).__name__ == 'RetinaNet':
            raise torch.cuda.OutOfMemoryError('CUDA out of memory.')
        stepped(run, steps)

    monkeypatch.setattr(module.SteppedRun, 'warm_up', warm_up)
    found = check(run_config(tmp_path, iterations=9, distill=block()), steps=2)
    assert found.alone is None and found.distilled is not None and np.isfinite(found.distilled.seconds)
    assert found.notes == [
        'The student alone was not measured, since the memory of the GPU does not hold both runs at a time.'
    ]
