"""Weights that change during a run: exact values, no idle work, exact resuming, two processes."""

from __future__ import annotations

import pytest
import torch
from _helpers.tiny import block, build, exact_resume, losses_of, run_config, state_of

from mmkd_plugin.block import expand_config
from mmkd_plugin.errors import DistillError

ATTENTION, FOREGROUND = 'distill.loss_fgd_attention', 'distill.loss_fgd_foreground'


def fgd(**keys):
    return block(methods=dict(fgd=dict(type='FGD', **keys)))


def train(tmp_path, iterations=4, **changes):
    runner = build(run_config(tmp_path, iterations=iterations, **changes))
    runner.train()
    return runner


def teacher_runs(runner):
    """The iterations in which the teacher's backbone runs in a training."""
    seen = []
    build_algorithm = runner._build_algorithm

    def watched(student):
        algorithm = build_algorithm(student)
        algorithm.teacher.model.backbone.register_forward_pre_hook(lambda *_: seen.append(runner.iter))
        return algorithm

    runner._build_algorithm = watched
    runner.train()
    # Several times in its first step, which compares its options.
    return sorted(set(seen))


def test_first_step_is_scaled_by_the_factor(tmp_path):
    plain = train(tmp_path / 'plain', 1, distill=fgd())
    scaled = train(
        tmp_path / 'scaled', 1, distill=fgd(schedule=dict(warm_up=4), schedules=dict(attention=dict(warm_up=2)))
    )
    assert losses_of(scaled, FOREGROUND)[0] == pytest.approx(0.25 * losses_of(plain, FOREGROUND)[0])
    assert losses_of(scaled, ATTENTION)[0] == pytest.approx(0.5 * losses_of(plain, ATTENTION)[0])


@pytest.mark.parametrize(
    ('schedule', 'runs'), [(dict(start=2), [2, 3, 4]), (dict(stop=2), [0, 1]), (dict(start=1, stop=3), [1, 2])]
)
def test_teacher_runs_only_while_it_is_read(tmp_path, schedule, runs):
    runner = build(run_config(tmp_path, iterations=5, distill=fgd(schedule=schedule)))
    assert teacher_runs(runner) == runs


def test_before_its_start_a_run_is_the_stock_one(tmp_path):
    stock = train(tmp_path / 'stock', 3, runner_type=None)
    late = train(tmp_path / 'late', 4, distill=fgd(schedule=dict(start=3)))
    assert losses_of(stock, 'loss') == losses_of(late, 'loss')[:3]
    assert len(losses_of(late, FOREGROUND)) == 1


def test_stopped_parameters_stay_as_they_are(tmp_path):
    short = train(tmp_path / 'short', 3, distill=fgd(schedule=dict(stop=3)))
    long = train(tmp_path / 'long', 6, distill=fgd(schedule=dict(stop=3)))
    first, second = short.model.extra_state(), long.model.extra_state()
    assert first and all(torch.equal(first[key], second[key]) for key in first)
    long.optim_wrapper.load_state_dict(long.optim_wrapper.state_dict())


@exact_resume
def test_resuming_inside_a_schedule_is_exact(tmp_path):
    distill = fgd(schedule=dict(warm_up=3, decay='cosine', end=9), schedules=dict(attention=dict(start=4, stop=8)))
    straight = train(tmp_path / 'straight', 10, distill=distill)
    train(tmp_path / 'parts', 5, distill=distill)
    resumed = train(tmp_path / 'parts', 10, distill=distill, resume=True)
    assert losses_of(straight, 'loss')[-5:] == losses_of(resumed, 'loss')[-5:]
    first, second = state_of(straight), state_of(resumed)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_printed_config_has_the_schedules(tmp_path):
    cfg = run_config(tmp_path / 'block', distill=fgd(schedule=dict(warm_up=3)))
    from_block = build(cfg)
    from_block.train()
    printed = expand_config(cfg)
    printed.work_dir = str(tmp_path / 'printed')
    again = build(printed)
    again.train()
    assert losses_of(from_block, 'loss') == losses_of(again, 'loss')


@pytest.mark.parametrize(
    ('keys', 'message'),
    [
        (dict(schedules=dict(atention=dict(stop=3))), 'term "atention".*"attention"'),
        (dict(schedule=dict(stopp=3)), r'"distill.methods.fgd.schedule.stopp" is not a key.*"stop"'),
        (dict(schedule=dict(stop='soon')), 'must be a whole number'),
        (dict(schedules=dict(attention=3)), 'must be a dict such as'),
        (dict(schedule=dict(stop=3, by_epoch=True)), 'counts iterations alone'),
        (
            dict(schedule=dict(start=1)),
            r'"distill.methods.fgd.schedule.start" starts at iteration 1, but the run has 1 of them.*a start below 1',
        ),
        (
            dict(schedule=dict(start=5000, warm_up=3, decay='cosine', stop=9000)),
            r'fgd.schedule.start" starts at iteration 5000',
        ),
        (
            dict(schedules=dict(attention=dict(start=7))),
            r'"distill.methods.fgd.schedules.attention.start" starts at iteration 7',
        ),
    ],
)
def test_mistakes_are_one_sentence(tmp_path, keys, message):
    with pytest.raises(DistillError, match=message) as caught:
        train(tmp_path, 1, distill=fgd(**keys))
    assert '\n' not in str(caught.value)


def test_schedule_that_never_begins_is_named_among_several_methods(tmp_path):
    pkd = dict(type='Feature', loss=dict(type='PKDLoss'), schedule=dict(start=9))
    methods = dict(fgd=dict(type='FGD', schedule=dict(start=1)), pkd=pkd)
    with pytest.raises(DistillError, match=r'"distill.methods.pkd.schedule.start" starts at iteration 9'):
        train(tmp_path, 2, distill=block(methods=methods))


@pytest.mark.parametrize(('start', 'refused'), [(1, False), (2, True)])
def test_schedule_in_epochs_that_never_begins(tmp_path, start, refused):
    loop = dict(type='EpochBasedTrainLoop', max_epochs=2, val_interval=10**6)
    loader = dict(
        batch_size=4,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=dict(type='TinyBoxes', length=4),
    )
    changes = dict(train_cfg=loop, train_dataloader=loader, distill=fgd(schedule=dict(start=start, by_epoch=True)))
    if not refused:
        assert len(losses_of(train(tmp_path, 2, **changes), FOREGROUND)) == 1
        return
    with pytest.raises(DistillError, match='starts at epoch 2, but the run has 2 of them'):
        train(tmp_path, 2, **changes)


@exact_resume
def test_schedule_that_ended_before_a_run_is_resumed(tmp_path):
    distill = fgd(schedule=dict(decay='linear', end=1, stop=2))
    train(tmp_path, 3, distill=distill)
    resumed = train(tmp_path, 4, distill=distill, resume=True)
    assert resumed.iter == 4


def test_hard_losses_get_their_share_back(tmp_path):
    """What the soft classes take from the hard ones returns as these fade, and wholly after their stop."""
    stock = train(tmp_path / 'stock', 1, runner_type=None)
    whole = losses_of(stock, 'loss_cls')[0]
    for schedule, share in ((dict(), 0.25), (dict(start=1), 1.0), (dict(warm_up=2), 1 - 0.5 * 0.75)):
        chen = dict(type='Chen', hard_share=0.25, schedule=schedule)
        runner = train(tmp_path / f'mixed{share}', 2, distill=block(methods=dict(chen=chen)))
        assert losses_of(runner, 'loss_cls')[0] == pytest.approx(share * whole)
    own = dict(type='Chen', hard_share=0.25, schedules=dict(soft=dict(start=1)))
    runner = train(tmp_path / 'own', 2, distill=block(methods=dict(chen=own)))
    assert losses_of(runner, 'loss_cls')[0] == pytest.approx(whole)
