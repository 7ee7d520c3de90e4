"""Off is off, resuming is exact, checkpoints and averages are students."""

from __future__ import annotations

import copy
from unittest import mock

import pytest
import torch
from _helpers.tiny import block, build, exact_resume, losses_of, retinanet, run_config, state_of
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import MODELS, OPTIM_WRAPPER_CONSTRUCTORS

from mmkd_plugin.block import expand_config
from mmkd_plugin.compat.checkpoint import load_checkpoint_file
from mmkd_plugin.engine import DistillRunner
from mmkd_plugin.errors import DistillError

ZERO = dict(fgd=dict(type='FGD', foreground_weight=0, background_weight=0, attention_weight=0, relation_weight=0))


def train(cfg):
    runner = build(cfg)
    runner.train()
    return runner


def equal(first, second):
    assert list(first) == list(second)
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize(
    'distill', [None, block(methods=ZERO), block(methods=dict(fgd=dict(type='FGD', loss_weight=0)))]
)
def test_off_is_off_bit_for_bit(tmp_path, distill):
    stock = train(run_config(tmp_path / 'stock', runner_type=None))
    off = train(run_config(tmp_path / 'off', distill=distill))
    assert losses_of(stock, 'loss') == losses_of(off, 'loss')
    equal(state_of(stock), state_of(off))


def test_zero_weight_needs_no_teacher(tmp_path):
    train(run_config(tmp_path, iterations=1, distill=block(teacher=None, teacher_ckpt=None, methods=ZERO)))


def test_first_losses_are_the_stock_ones(tmp_path):
    """Student and data start as without distillation: nothing that is added draws from their random numbers."""
    stock = train(run_config(tmp_path / 'stock', iterations=1, runner_type=None))
    distilled = train(run_config(tmp_path / 'distilled', iterations=1, distill=block()))
    for name in ('loss_cls', 'loss_bbox'):
        assert losses_of(stock, name) == losses_of(distilled, name)


def test_checkpoint_is_a_plain_student(tmp_path):
    train(run_config(tmp_path, distill=block()))
    checkpoint = load_checkpoint_file(str(tmp_path / 'iter_4.pth'))
    MODELS.build(retinanet()).load_state_dict(checkpoint['state_dict'], strict=True)
    assert set(checkpoint['distill_state']) and not any('teacher.' in key for key in checkpoint['distill_state'])


@exact_resume
def test_resume_is_exact(tmp_path):
    straight = train(run_config(tmp_path / 'straight', iterations=20, distill=block()))
    train(run_config(tmp_path / 'parts', iterations=10, distill=block()))
    cfg = run_config(tmp_path / 'parts', iterations=20, distill=block(), resume=True)
    resumed = train(cfg)
    equal(state_of(straight), state_of(resumed))
    equal(straight.model.extra_state(), resumed.model.extra_state())
    assert losses_of(straight, 'loss')[-10:] == losses_of(resumed, 'loss')[-10:]
    first, second = (runner.optim_wrapper.state_dict()['state'] for runner in (straight, resumed))
    assert all(torch.equal(first[key]['momentum_buffer'], second[key]['momentum_buffer']) for key in first)


def test_resuming_another_block_is_refused(tmp_path):
    train(run_config(tmp_path, iterations=1, distill=block()))
    other = block(teacher=retinanet(width=32))
    with pytest.raises(DistillError, match='another distill block'):
        train(run_config(tmp_path, iterations=2, distill=other, resume=True))


def test_ema_holds_the_student_alone(tmp_path):
    hooks = [dict(type='EMAHook', momentum=0.5, update_buffers=True)]
    runner = train(run_config(tmp_path, distill=block(), custom_hooks=hooks))
    hook = next(hook for hook in runner.hooks if type(hook).__name__ == 'EMAHook')
    assert [name for name, _ in hook.ema_model.module.named_parameters()] == [
        name for name, _ in MODELS.build(retinanet()).named_parameters()
    ]
    checkpoint = load_checkpoint_file(str(tmp_path / 'iter_4.pth'))
    MODELS.build(retinanet()).load_state_dict(checkpoint['state_dict'], strict=True)
    averaged = hook.ema_model.module.state_dict()
    assert all(torch.equal(checkpoint['state_dict'][key], averaged[key]) for key in averaged)
    assert not any('distiller' in key or 'teacher' in key for key in checkpoint['ema_state_dict'])


def test_printed_config_trains_to_the_same_numbers(tmp_path):
    cfg = run_config(tmp_path / 'block', distill=block())
    from_block = train(cfg)
    expand_config(cfg).dump(tmp_path / 'expanded.py')
    from mmengine.config import Config

    for name, runner_type in (('same', 'mmkd_plugin.DistillRunner'), ('stock', None)):
        printed = Config.fromfile(tmp_path / 'expanded.py')
        printed.work_dir, printed.runner_type = str(tmp_path / name), runner_type
        expanded = train(printed)
        assert losses_of(from_block, 'loss') == losses_of(expanded, 'loss')
        equal(state_of(from_block), state_of(expanded))


@pytest.mark.parametrize('first', ['stock', 'distilled'])
def test_resuming_with_the_block_switched_is_refused(tmp_path, first):
    switched = {'stock': [None, block()], 'distilled': [block(), None]}[first]
    train(run_config(tmp_path, iterations=1, distill=switched[0]))
    with pytest.raises(DistillError, match='that of another distill block, or of none'):
        train(run_config(tmp_path, iterations=2, distill=switched[1], resume=True))


def test_training_twice_keeps_the_algorithm(tmp_path):
    runner = train(run_config(tmp_path, iterations=1, distill=block()))
    algorithm = runner.model
    runner.train()
    assert runner.model is algorithm


def test_testing_needs_no_teacher(tmp_path):
    cfg = run_config(
        tmp_path,
        distill=block(teacher='no/such/config.py', teacher_ckpt='no_such.pth'),
        val_dataloader=None,
        test_dataloader=dict(
            batch_size=2,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=False),
            dataset=dict(type='TinyBoxes', length=2),
        ),
        test_cfg=dict(type='TestLoop'),
        test_evaluator=dict(type='DumpDetResults', out_file_path=str(tmp_path / 'out.pkl')),
    )
    build(cfg).test()
    assert (tmp_path / 'out.pkl').exists()


def test_missing_teacher_is_said_before_training(tmp_path):
    with pytest.raises(DistillError, match='names no teacher'):
        train(run_config(tmp_path, distill=block(teacher=None)))
    with pytest.raises(DistillError, match='no weights for the teacher'):
        train(run_config(tmp_path, distill=block(teacher_ckpt=None)))


def test_optimizer_rules_see_the_students_names(tmp_path):
    cfg = run_config(tmp_path, iterations=1, distill=block())
    cfg.optim_wrapper.paramwise_cfg = dict(custom_keys={'backbone': dict(lr_mult=0.1)})
    runner = train(cfg)
    groups = runner.optim_wrapper.optimizer.param_groups
    by_parameter = {id(parameter): group['lr'] for group in groups for parameter in group['params']}
    assert by_parameter[id(runner.model.student.backbone.conv1.weight)] == pytest.approx(0.001)
    assert all(by_parameter[id(parameter)] == 0.01 for parameter in runner.model.distiller.parameters())


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class NamedGroups(DefaultOptimWrapperConstructor):
    """Groups that name their parameters, as those of layer-wise decay do."""

    def add_params(self, params, module, **kwargs):
        names, parameters = zip(*module.named_parameters())
        params.append(dict(params=list(parameters), param_names=list(names)))


def test_groups_with_names_get_another_with_names(tmp_path):
    cfg = run_config(tmp_path, iterations=1, distill=block())
    cfg.optim_wrapper.update(constructor='NamedGroups', paramwise_cfg=dict(decay_rate=0.9))
    runner = train(cfg)
    own, ours = runner.optim_wrapper.optimizer.param_groups
    assert own['param_names'][0] == 'backbone.conv1.weight'
    names = [f'distiller.{name}' for name, _ in runner.model.distiller.named_parameters()]
    assert ours['param_names'] == names and len(ours['params']) == len(names)


def test_missing_data_set_is_one_sentence(tmp_path):
    cfg = run_config(tmp_path, distill=block())
    cfg.train_dataloader.dataset = dict(
        type='CocoDataset', data_root='data/nowhere/', ann_file='annotations/train.json', data_prefix=dict(img='train/')
    )
    with pytest.raises(DistillError, match=r'expected at "data/nowhere/annotations/train.json".*make_coco_mini'):
        train(cfg)


def test_gradient_accumulation(tmp_path):
    cfg = run_config(tmp_path, distill=block())
    cfg.optim_wrapper.accumulative_counts = 2
    train(cfg)


def test_block_is_not_changed_by_a_run(tmp_path):
    distill = block()
    before = copy.deepcopy(distill)
    train(run_config(tmp_path, iterations=1, distill=distill))
    assert distill == before


@pytest.mark.slow
def test_compiled_step_gives_the_same_losses(tmp_path):
    """The backend that compiles nothing still traces everything, which is where a step would fail."""
    plain = train(run_config(tmp_path / 'plain', iterations=1, distill=block()))
    compiled = train(run_config(tmp_path / 'compiled', iterations=1, distill=block(), compile=dict(backend='eager')))
    assert losses_of(plain, 'loss') == losses_of(compiled, 'loss')


@pytest.mark.parametrize(('changes', 'words'), [({}, 'has no distill block'), (dict(runner_type=None), '')])
def test_our_runner_without_a_block_says_so(tmp_path, changes, words):
    config = run_config(tmp_path, iterations=1)
    config.pop('distill', None)
    config.update({'runner_type': 'mmkd_plugin.DistillRunner', **changes})
    runner = DistillRunner.from_cfg(config)
    with mock.patch.object(runner.logger, 'info') as info:
        runner.train()
    said = [str(call.args[0]) for call in info.call_args_list if 'Distillation is off' in str(call.args[0])]
    assert len(said) == bool(words) and all(words in line for line in said)
