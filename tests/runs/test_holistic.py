"""The discriminator in the training loop: its steps by hand, resuming, off is off, plain checkpoints, names."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
from _helpers.tiny import build, exact_resume, losses_of, state_of
from _helpers.tiny_seg import batch, block, pspnet, run_config
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import MODELS

from mmkd_plugin.block import DistillBlock, expand_config
from mmkd_plugin.compat.checkpoint import load_checkpoint_file
from mmkd_plugin.engine.adversarial_hook import STATE_KEY
from mmkd_plugin.engine.inspection import inspect_adversaries
from mmkd_plugin.engine.self_check import adversaries_text
from mmkd_plugin.engine.state_hook import algorithm_of
from mmkd_plugin.errors import DistillError

HOLISTIC = dict(type='Holistic', widths=[8, 8])
KINDS = pytest.mark.parametrize('conditional', [True, False])


def config(work_dir, iterations=3, method=None, **changes) -> Config:
    return run_config(
        work_dir, iterations, distill=block({}, methods=dict(holistic={**HOLISTIC, **(method or {})})), **changes
    )


def adversary_of(runner):
    return algorithm_of(runner).adversaries['loss_holistic']


class Spy(Hook):
    """Keep what each step of the discriminator starts from."""

    priority = 'HIGH'

    def __init__(self) -> None:
        self.arguments: list[dict] = []
        self.start: dict | None = None

    def before_train(self, runner) -> None:
        self.start = copy.deepcopy(adversary_of(runner).loss)

    def after_train_iter(self, runner, *_, **__) -> None:
        self.arguments.append(dict(adversary_of(runner)._arguments))


def spied(cfg: Config):
    runner, spy = build(cfg), Spy()
    runner.register_hook(spy)
    runner.train()
    return runner, spy


def mixtures(seed: int, iteration: int, images: int) -> torch.Tensor:
    import numpy as np

    number = int(np.random.SeedSequence((seed, iteration, 0)).generate_state(1)[0])
    return torch.rand(images, 1, 1, 1, generator=torch.Generator().manual_seed(number))


@pytest.fixture
def amp_on_cpu(monkeypatch, amp):
    """MMEngine's mixed precision, which asks for a GPU, with the scaler of the CPU."""
    if not amp:
        return
    if not hasattr(torch.amp, 'GradScaler'):
        pytest.skip('this torch scales gradients on a GPU alone')
    from mmengine.optim.optimizer import amp_optimizer_wrapper

    monkeypatch.setattr(amp_optimizer_wrapper, 'is_cuda_available', lambda: True)
    monkeypatch.setattr(amp_optimizer_wrapper, 'GradScaler', functools.partial(torch.amp.GradScaler, 'cpu'))


@KINDS
@pytest.mark.parametrize('amp', [False, True])
@pytest.mark.parametrize(('counts', 'clip'), [(1, None), (2, None), (1, dict(max_norm=0.01))])
def test_steps_by_hand(tmp_path, conditional, counts, clip, amp, amp_on_cpu):
    """Student's term first, then one step of plain SGD with its poly schedule, accumulated, clipped and unscaled."""
    options = dict(accumulative_counts=counts, clip_grad=clip and dict(clip))
    cfg = config(tmp_path, 4, dict(conditional=conditional, optim_wrapper=options))
    if amp:
        cfg.optim_wrapper.update(type='AmpOptimWrapper', dtype='bfloat16')
    runner, spy = spied(cfg)
    assert spy.arguments[0]['student'].dtype == (torch.bfloat16 if amp else torch.float32)
    assert ('loss_scaler' in adversary_of(runner).state_dict()['optimizer']) is amp
    loss = spy.start.requires_grad_(True)
    optimizer = torch.optim.SGD(loss.discriminator.parameters(), 4e-4, momentum=0.9, weight_decay=5e-4)
    student_terms = []
    for iteration, arguments in enumerate(spy.arguments):
        student_terms.append(float(loss.terms(**arguments)['holistic']))
        terms = loss.discriminator_terms(**arguments, mix=mixtures(runner.seed, iteration, 2))
        (sum(terms.values()) / counts).backward()
        if (iteration + 1) % counts == 0:
            if clip:
                torch.nn.utils.clip_grad_norm_(loss.parameters(), **clip)
            optimizer.step()
            optimizer.zero_grad()
        optimizer.param_groups[0]['lr'] = 4e-4 * max(1 - (iteration + 1) / 3, 0) ** 0.9
    assert losses_of(runner, 'distill.loss_holistic') == pytest.approx(student_terms, rel=1e-5)
    assert losses_of(runner, 'discriminator.holistic.penalty')[-1] == pytest.approx(
        float(terms['penalty'].detach()), rel=1e-5
    )
    trained = adversary_of(runner).discriminator.state_dict()
    for name, expected in loss.discriminator.state_dict().items():
        torch.testing.assert_close(trained[name], expected, rtol=1e-5, atol=1e-7)


def test_students_wrapper_gives_the_defaults(tmp_path):
    cfg = config(tmp_path)
    cfg.optim_wrapper.accumulative_counts = 3
    cfg.optim_wrapper.pop('clip_grad', None)
    cfg.optim_wrapper.clip_grad = dict(type='value', clip_value=0.1)
    runner, _ = spied(cfg)
    wrapper = adversary_of(runner).wrapper
    assert wrapper._accumulative_counts == 3
    assert wrapper.clip_grad_kwargs == dict(clip_value=0.1)
    assert wrapper.clip_func is torch.nn.utils.clip_grad_value_


def test_student_never_sees_the_discriminator(tmp_path):
    runner, spy = spied(config(tmp_path))
    theirs = {id(parameter) for parameter in adversary_of(runner).discriminator.parameters()}
    ours = {id(item) for group in runner.optim_wrapper.param_groups for item in group['params']}
    assert theirs and not theirs & ours
    assert not any(parameter.requires_grad for parameter in adversary_of(runner).discriminator.parameters())


def test_steps_leave_the_random_numbers_alone(tmp_path):
    """With a term that is next to nothing the student trains as without one: same data, same dropout."""
    stock = build(run_config(tmp_path / 'stock', 3, runner_type=None))
    stock.train()
    runner, _ = spied(config(tmp_path / 'run', method=dict(loss_weight=1e-30)))
    assert losses_of(runner, 'decode.loss_ce') == pytest.approx(losses_of(stock, 'decode.loss_ce'), rel=1e-6)


@exact_resume
@KINDS
def test_resume_is_exact(tmp_path, conditional):
    method = dict(conditional=conditional)
    # MMEngine keeps no state of random numbers, which dropout would draw from.
    save = dict(
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=10)),
        model=pspnet(dropout=0.0),
    )
    straight, _ = spied(config(tmp_path / 'run', 20, method, **save))
    resumed = config(tmp_path / 'resumed', 20, method, **save)
    resumed.load_from, resumed.resume = str(tmp_path / 'run' / 'iter_10.pth'), True
    resumed, _ = spied(resumed)
    for first, second in (
        (state_of(straight), state_of(resumed)),
        (adversary_of(straight).discriminator.state_dict(), adversary_of(resumed).discriminator.state_dict()),
    ):
        assert all(torch.equal(first[key], second[key]) for key in first)
    first, second = (adversary_of(runner).state_dict() for runner in (straight, resumed))
    assert str(first) == str(second)


def test_checkpoint_is_a_plain_student_with_the_discriminator_beside(tmp_path):
    cfg = config(tmp_path / 'block')
    runner, _ = spied(cfg)
    checkpoint = load_checkpoint_file(str(tmp_path / 'block' / 'iter_3.pth'))
    MODELS.build(pspnet()).load_state_dict(checkpoint['state_dict'], strict=True)
    assert checkpoint[STATE_KEY]['loss_holistic']['optimizer']['state']
    assert any('discriminator.stages.0.0.u' in key for key in checkpoint['distill_state'])
    expand_config(cfg).dump(tmp_path / 'expanded.py')
    printed = Config.fromfile(tmp_path / 'expanded.py')
    printed.work_dir = str(tmp_path / 'printed')
    expanded = build(printed)
    expanded.train()
    for first, second in (
        (state_of(runner), state_of(expanded)),
        (adversary_of(runner).discriminator.state_dict(), adversary_of(expanded).discriminator.state_dict()),
    ):
        assert all(torch.equal(first[key], second[key]) for key in first)


def test_another_optimizer_is_refused_on_resume(tmp_path):
    spied(config(tmp_path / 'run'))
    cfg = config(tmp_path / 'other', 5, dict(param_scheduler=None))
    cfg.load_from, cfg.resume = str(tmp_path / 'run' / 'iter_3.pth'), True
    with pytest.raises(DistillError, match='another optimizer or schedule of the discriminator'):
        build(cfg).train()


def test_names_and_table(tmp_path):
    runner, _ = spied(config(tmp_path, method=dict(optim_wrapper=dict(clip_grad=dict(max_norm=1.0)))))
    names = {name for name in runner.message_hub.log_scalars if 'discriminator' in name}
    terms = ('adversarial', 'penalty', 'lr', 'grad_norm')
    assert names == {f'train/discriminator.holistic.{term}' for term in terms}
    assert losses_of(runner, 'discriminator.holistic.lr')[0] == 4e-4
    adversary = adversary_of(runner)
    rows, faults = inspect_adversaries({'loss_holistic': adversary})
    text = adversaries_text(rows)
    size = sum(parameter.numel() for parameter in adversary.discriminator.parameters())
    assert f'{size:,}' in text and 'penalty' in text and not faults
    adversary.terms['penalty'] = torch.tensor(float('nan'))
    assert 'penalty' in inspect_adversaries({'loss_holistic': adversary})[1][0]


def test_averaged_model_has_no_discriminator(tmp_path):
    cfg = config(tmp_path, custom_hooks=[dict(type='EMAHook')])
    spied(cfg)
    checkpoint = load_checkpoint_file(str(tmp_path / 'iter_3.pth'))
    assert not any('discriminator' in key for key in {**checkpoint['ema_state_dict'], **checkpoint['state_dict']})


def test_off_is_off(tmp_path):
    change = dict(loss_weight=0)
    assert not DistillBlock.parse(block({**HOLISTIC, **change})).methods
    stock = build(run_config(tmp_path / 'stock', 2, runner_type=None))
    stock.train()
    off = build(config(tmp_path / 'off', 2, change))
    off.train()
    assert losses_of(stock, 'loss') == losses_of(off, 'loss')
    assert all(torch.equal(value, state_of(off)[key]) for key, value in state_of(stock).items())


def test_half_precision_logits_are_judged_in_full(tmp_path):
    model = MODELS.build(expand_config(config(tmp_path)).model).train()
    with torch.autocast('cpu', torch.bfloat16):
        losses = model(**batch(model), mode='loss')
    adversary = model.adversaries['loss_holistic']
    adversary.build_optimizer(None, 'discriminator')
    assert adversary._arguments['student'].dtype == torch.bfloat16
    adversary.step(0, 0, 0)
    assert losses['distill.loss_holistic'].dtype == torch.float32
    assert all(value.dtype == torch.float32 and torch.isfinite(value) for value in adversary.terms.values())


def test_without_its_hook_training_stops(tmp_path):
    model = MODELS.build(expand_config(config(tmp_path)).model).train()
    model(**batch(model), mode='loss')
    with pytest.raises(DistillError, match='AdversarialHook'):
        model(**batch(model), mode='loss')


@pytest.mark.parametrize(
    ('method', 'message'),
    [
        (dict(widths=[]), 'give a list of channels'),
        (dict(discriminator_weight=0), 'never learns'),
        (dict(adversary='lsgan'), "'wgan' or 'hinge'"),
    ],
)
def test_mistakes_are_one_sentence(method, message):
    with pytest.raises(DistillError, match=message):
        DistillBlock.parse(block({**HOLISTIC, **method}))
