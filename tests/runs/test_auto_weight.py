"""Weights that find themselves in whole runs: their log, exact resuming, schedules, accumulation, several teachers."""

from __future__ import annotations

import pytest
import torch
from _helpers import tiny_seg
from _helpers.method_tester import initialised
from _helpers.ranks import train_on_two_ranks
from _helpers.tiny import batch, block, build, exact_resume, faster_rcnn, losses_of, retinanet, run_config, state_of
from mmengine.registry import MODELS

from mmkd_plugin.algorithms.gradients import Pull
from mmkd_plugin.block import expand_config
from mmkd_plugin.compat.checkpoint import load_checkpoint_file
from mmkd_plugin.distillers.schedule import Progress

WEIGHT = 'distill.fgd_weight'


def fgd(**keys):
    return block(methods=dict(fgd=dict(type='FGD', loss_weight='auto', **keys)))


def train(tmp_path, iterations=4, **changes):
    runner = build(run_config(tmp_path, iterations=iterations, **changes))
    runner.train()
    return runner


def measured(runner) -> list[int]:
    """Steps at which the weight changed, the first one being at hand."""
    weights = losses_of(runner, WEIGHT)
    return [step for step in range(1, len(weights)) if weights[step] != weights[step - 1]]


def test_weight_is_logged_and_changes_where_it_is_measured(tmp_path):
    runner = train(tmp_path, 9, distill=fgd())
    assert measured(runner) == [1, 3, 7]
    assert all(weight > 0 for weight in losses_of(runner, WEIGHT))
    log = '\n'.join(path.read_text() for path in tmp_path.rglob('*.log'))
    assert 'The loss_weight=\'auto\' of "fgd" is' in log


@exact_resume
@pytest.mark.parametrize('at', [3, 5, 8])
def test_resuming_is_exact(tmp_path, at):
    straight = train(tmp_path / 'straight', 10, distill=fgd())
    train(tmp_path / 'parts', at, distill=fgd())
    resumed = train(tmp_path / 'parts', 10, distill=fgd(), resume=True)
    for name in ('loss', WEIGHT):
        assert losses_of(straight, name)[at:] == losses_of(resumed, name)[-(10 - at) :]
    first, second = state_of(straight), state_of(resumed)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_checkpoint_stays_a_plain_student(tmp_path):
    runner = train(tmp_path, 2, distill=fgd())
    checkpoint = load_checkpoint_file(str(tmp_path / 'iter_2.pth'))
    assert not any('balance' in key for key in checkpoint['state_dict'])
    saved = checkpoint['distill_state']['balance.log_factors']
    assert torch.equal(saved, runner.model.distiller.balance.log_factors)
    assert saved.abs().sum() > 0


def test_schedule_multiplies_beside_the_factor(tmp_path):
    """The ratio is that of the full weight: at the first step the ramp takes a fourth of the same term."""
    whole = train(tmp_path / 'whole', 1, distill=fgd())
    ramp = train(tmp_path / 'ramp', 1, distill=fgd(schedule=dict(warm_up=4)))
    assert losses_of(ramp, WEIGHT) == losses_of(whole, WEIGHT)
    name = 'distill.loss_fgd_foreground'
    assert losses_of(ramp, name)[0] == pytest.approx(losses_of(whole, name)[0] / 4)


def test_method_that_begins_later_is_measured_at_its_first_step(tmp_path):
    runner = train(tmp_path, 6, distill=fgd(schedule=dict(start=3)))
    weights = losses_of(runner, WEIGHT)
    assert weights[:3] == [1.0] * 3
    assert weights[3] != 1.0
    assert measured(runner) == [3, 4]


def test_term_without_a_weight_does_not_count():
    """The relation, which begins later, is no part of the gradient that is brought to the share."""
    written = dict(
        type='FGD', loss_weight='auto', share=1, relation_weight=1e-3, schedules=dict(relation=dict(start=1))
    )
    cfg = expand_config(run_config('unused', distill=block(methods=dict(fgd=written))))
    model = initialised(lambda: MODELS.build(cfg.model))
    ratios = []

    def observe(algorithm, losses):
        terms = algorithm.distiller.terms
        active = [value for values in terms.values() for term, value in values.items() if term != 'relation']
        every = [value for values in terms.values() for value in values.values()]
        pulls = dict(active=Pull(active, list(terms)), every=Pull(every, list(terms)))
        found = algorithm.compare_gradients(losses, pulls)
        ratios.append([(own / task).sqrt().item() for task, own in (found['active'], found['every'])])

    model.step_observers.append(observe)
    data = batch(model)
    for iteration in (0, 1):
        model.distiller.progress = Progress(iteration, 0, 10, 1)
        model(**data, mode='loss')
    assert ratios[0] == pytest.approx([1, 1], rel=1e-3)
    # From its start on it counts, and the factor moves towards that.
    assert ratios[1][0] < 0.9


def test_accumulation_changes_nothing(tmp_path):
    """As long as no optimizer step lies between, the weights of accumulated steps are those of plain ones."""
    wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.0))
    plain = train(tmp_path / 'plain', 4, distill=fgd(), optim_wrapper=wrapper)
    summed = train(tmp_path / 'summed', 4, distill=fgd(), optim_wrapper=dict(wrapper, accumulative_counts=2))
    assert losses_of(summed, WEIGHT) == losses_of(plain, WEIGHT)


def test_several_methods_and_teachers_each_have_a_weight(tmp_path):
    teachers = dict(
        one=dict(teacher=retinanet(24), teacher_ckpt='random'),
        two=dict(teacher=faster_rcnn(24), teacher_ckpt='random', loss_weight=0.5),
    )
    methods = dict(
        fgd=dict(type='FGD', teacher='one', loss_weight='auto'),
        pkd=dict(type='Feature', loss=dict(type='PKDLoss'), teacher='two', loss_weight='auto'),
        fgi=dict(type='FGI', base_size=8, teacher='one', loss_weight=0.5),
    )
    runner = train(tmp_path, 3, distill=dict(teachers=teachers, methods=methods))
    balance = runner.model.distiller.balance
    assert {name: method.share for name, method in balance.methods.items()} == dict(fgd=1.5, pkd=0.75)
    assert balance.counts.tolist() == [2, 2]
    assert losses_of(runner, 'distill.pkd_weight')[-1] > 0


def test_only_the_students_term_of_a_discriminator_is_weighed(tmp_path):
    terms = []
    for written in ({}, dict(loss_weight='auto', share=5)):
        method = dict(type='Holistic', widths=[8, 8], **written)
        runner = build(tiny_seg.run_config(tmp_path / str(bool(written)), 1, distill=tiny_seg.block(method)))
        runner.train()
        terms.append({name: value.item() for name, value in runner.model.adversaries['loss_seg'].terms.items()})
    assert terms[0] == terms[1]
    assert losses_of(runner, 'distill.seg_weight')[0] != pytest.approx(0.1, rel=0.1)


def test_name_with_loss_in_it_is_not_added_up(tmp_path):
    distill = block(methods=dict(my_loss=dict(type='FGD', loss_weight='auto')))
    runner = train(tmp_path, 1, distill=distill)
    names = [name for name in runner.message_hub.log_scalars if name.startswith('train/') and 'loss' in name]
    parts = [name[len('train/') :] for name in names if name != 'train/loss']
    assert losses_of(runner, 'loss')[0] == pytest.approx(sum(losses_of(runner, name)[0] for name in parts))
    assert losses_of(runner, 'distill.my_term_weight')[0] > 0


def test_printed_config_trains_to_the_same_numbers(tmp_path):
    cfg = run_config(tmp_path / 'block', distill=fgd(share=0.5))
    from_block = build(cfg)
    from_block.train()
    printed = expand_config(cfg)
    printed.work_dir = str(tmp_path / 'printed')
    again = build(printed)
    again.train()
    for name in ('loss', WEIGHT):
        assert losses_of(from_block, name) == losses_of(again, name)


def test_validation_measures_nothing(tmp_path):
    runner = build(run_config(tmp_path, 1, distill=fgd()))
    runner.train()
    balance = runner.model.distiller.balance
    before = balance.get_extra_state()
    with torch.no_grad():
        runner.model._due()
    runner.model.eval()._due()
    assert torch.equal(balance.get_extra_state(), before)


def test_two_ranks_have_the_same_weights(tmp_path):
    first, second = train_on_two_ranks(tmp_path, 'auto')
    name = 'distiller.balance.log_factors'
    assert first[name].abs().sum() > 0
    assert all(torch.equal(first[key], second[key]) for key in first)
