"""What stops being finite ends the run at that step, whatever the step, and the good checkpoint stays the last one."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from _helpers import breaking
from _helpers.breaking import broken_run
from _helpers.tiny import block, build, run_config
from mmengine.hooks import Hook
from mmengine.logging import MessageHub
from mmengine.registry import HOOKS

from mmkd_plugin.compat.checkpoint import load_checkpoint_file
from mmkd_plugin.engine import FiniteHook
from mmkd_plugin.engine.fault import read_step
from mmkd_plugin.engine.readings import LEAST_SCALE, Label, Reading, peaks
from mmkd_plugin.errors import DistillError
from mmkd_plugin.utilities.host_syncs import HostSyncs

DELAYED = dict(type='mmkd_plugin.FiniteHook', delayed=True)
NEVER = 10**6

host_scaler = pytest.mark.skipif(not hasattr(torch.amp, 'GradScaler'), reason='this torch scales on GPUs alone')


def stopped(cfg: Any) -> str:
    """The sentence that a run ends with."""
    with pytest.raises(DistillError) as error:
        build(cfg).train()
    return str(error.value)


def checkpoints(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob('*.pth'))


def late(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Let each reading arrive as late as on a busy device: so many steps after it was sent."""
    send = Reading.__init__

    def now() -> int:
        return MessageHub.get_current_instance().get_info('iter')

    def sent(self: Any, *arguments: Any) -> None:
        send(self, *arguments)
        self.sent = now()

    monkeypatch.setattr(Reading, '__init__', sent)
    monkeypatch.setattr(Reading, 'ready', lambda self: now() - self.sent >= steps)


@pytest.mark.parametrize(('delayed', 'self_check'), [(False, False), (True, False), (True, True)])
def test_runaway_learning_rate_ends_the_run_at_its_second_step(tmp_path, delayed, self_check):
    """The losses of step 2 are computed from the weights that step 1 has thrown away."""
    hooks = [DELAYED] if delayed else []
    cfg = run_config(tmp_path, 6, distill=block(self_check=self_check), custom_hooks=hooks)
    cfg.optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=1e9))
    sentence = stopped(cfg)
    assert sentence.startswith('Iteration 2: "loss_fgd.')
    assert 'and so is "loss_' in sentence and 'lower the learning rate or let it warm up' in sentence
    assert f'"mmkd replay {tmp_path / "fault_iter_2"}" repeats the step' in sentence
    assert sentence.count('images') == 1 and 'no checkpoint was written before' in sentence
    assert checkpoints(tmp_path) == []


@pytest.mark.parametrize(('step', 'self_check'), [(1, True), (1, False), (2, True), (7, False)])
def test_term_is_named_with_its_level_and_images(tmp_path, step, self_check):
    cfg = broken_run(tmp_path, 'nan', step, level=1, iterations=8, distill=dict(self_check=self_check))
    sentence = stopped(cfg)
    assert sentence.startswith(f'Iteration {step}: "loss_x" at level 1 is nan (images ')
    assert 'lower its weight' in sentence and ' more' not in sentence.partition('(')[0]
    state = read_step(str(tmp_path / f'fault_iter_{step}'))
    assert len(state['images']) == 4
    assert all(image in sentence for image in state['images'])
    assert state['weights']['iteration'] == step - 1


def test_late_fault_leaves_the_good_checkpoint_and_resuming_goes_on(tmp_path):
    cfg = broken_run(tmp_path, 'nan', 4)
    cfg.default_hooks.checkpoint.update(interval=2, max_keep_ckpts=1)
    sentence = stopped(cfg)
    good = tmp_path / 'iter_2.pth'
    assert sentence.endswith(f'and "{good}" is the last good checkpoint.')
    assert checkpoints(tmp_path) == ['iter_2.pth']
    weights = load_checkpoint_file(str(good))['state_dict']
    assert all(torch.isfinite(value).all() for value in weights.values())

    healed = broken_run(tmp_path, 'nan', NEVER, iterations=5)
    healed.resume = True
    runner = build(healed)
    runner.train()
    assert runner.iter == 5 and (tmp_path / 'iter_5.pth').exists()


@pytest.mark.parametrize('delayed', [False, True])
def test_gradient_that_breaks_while_all_losses_are_finite(tmp_path, delayed):
    cfg = broken_run(tmp_path, 'gradient', 3, custom_hooks=[DELAYED] if delayed else [])
    sentence = stopped(cfg)
    assert sentence.startswith('Iteration 3: the gradient of "')
    assert 'division or root at zero' in sentence
    # Before clipping: only what the term reaches, its connector too, and not the head.
    kinds = {(kind, name.split('.')[0]) for kind, name, *_ in read_step(str(tmp_path / 'fault_iter_3'))['findings']}
    assert kinds == {('gradient', 'backbone'), ('gradient', 'neck'), ('gradient', 'distiller')}


def test_weight_that_the_update_breaks(tmp_path):
    class Breaking(Hook):
        priority = 'VERY_HIGH'

        def after_train_iter(self, runner: Any, *_: Any, **__: Any) -> None:
            if runner.iter == 2:
                runner.model.student.bbox_head.retina_cls.bias.data[1] = float('inf')

    HOOKS.register_module(module=Breaking, force=True)
    sentence = stopped(run_config(tmp_path, 6, distill=block(), custom_hooks=[dict(type='Breaking')]))
    assert sentence.startswith('Iteration 3: after its step the weight "bbox_head.retina_cls.bias" is infinite')
    assert read_step(str(tmp_path / 'fault_iter_3'))['weights'] is None


@pytest.mark.parametrize('lag', [0, 1, 3])
def test_delayed_reading_finds_the_same_fault_later(tmp_path, monkeypatch, lag):
    late(monkeypatch, lag)
    ends: list[int] = []
    runner = build(broken_run(tmp_path, 'nan', 3, level=2, iterations=9, custom_hooks=[DELAYED]))
    runner.register_hook(_Counter(ends))
    with pytest.raises(DistillError, match='Iteration 3: "loss_x" at level 2 is nan'):
        runner.train()
    # Where the numbers are there in time, the weights have not moved.
    assert ends == list(range(1, 3 + lag))
    kept = read_step(str(tmp_path / 'fault_iter_3'))
    assert len(kept['images']) == 4
    assert (kept['weights'] is None) == bool(lag)


class _Counter(Hook):
    """Counts the steps that were finished."""

    priority = 'VERY_HIGH'

    def __init__(self, ends: list[int]) -> None:
        self.ends = ends

    def after_train_iter(self, runner: Any, *_: Any, **__: Any) -> None:
        self.ends.append(runner.iter + 1)


@pytest.mark.parametrize('last', ['checkpoint', 'end'])
def test_delayed_reading_is_waited_for_before_a_checkpoint_and_at_the_end(tmp_path, monkeypatch, last):
    late(monkeypatch, NEVER)
    cfg = broken_run(tmp_path, 'nan', 3, iterations=9 if last == 'checkpoint' else 3, custom_hooks=[DELAYED])
    cfg.default_hooks.checkpoint.interval = 3 if last == 'checkpoint' else -1
    assert stopped(cfg).startswith('Iteration 3: "loss_x" at level 0 is nan')
    assert checkpoints(tmp_path) == []


def test_whoever_saves_is_stopped(tmp_path, monkeypatch):
    """A hook that saves by itself between two looks."""
    late(monkeypatch, NEVER)

    class Saving(Hook):
        def after_train_iter(self, runner: Any, *_: Any, **__: Any) -> None:
            runner.save_checkpoint(runner.work_dir, f'own_{runner.iter + 1}.pth', by_epoch=False)

    HOOKS.register_module(module=Saving, force=True)
    cfg = broken_run(tmp_path, 'nan', 3, iterations=9, custom_hooks=[DELAYED, dict(type='Saving')])
    assert stopped(cfg).startswith('Iteration 3: ')
    assert checkpoints(tmp_path) == ['own_1.pth', 'own_2.pth']


def test_break_down_that_a_fault_led_to_is_told_as_the_fault(tmp_path, monkeypatch):
    late(monkeypatch, NEVER)

    class Failing(Hook):
        def before_train_iter(self, runner: Any, *_: Any, **__: Any) -> None:
            if runner.iter == 3:
                raise ValueError('matrix contains invalid numeric entries')

    HOOKS.register_module(module=Failing, force=True)
    cfg = broken_run(tmp_path, 'nan', 3, iterations=9, custom_hooks=[DELAYED, dict(type='Failing')])
    assert stopped(cfg).startswith('Iteration 3: ')
    cfg = broken_run(tmp_path, 'nan', NEVER, iterations=9, custom_hooks=[DELAYED, dict(type='Failing')])
    with pytest.raises(ValueError, match='invalid numeric'):
        build(cfg).train()


def test_no_step_waits_for_the_device(tmp_path, monkeypatch):
    """Six steps with the hook make the host wait as often as six steps without it."""
    late(monkeypatch, NEVER)
    calls = {}
    for name in ('with', 'without'):
        cfg = run_config(tmp_path / name, 6, distill=block(self_check=False), custom_hooks=[DELAYED])
        runner = build(cfg)
        watch = HostSyncs()
        runner.register_hook(_Between(watch))
        if name == 'without':
            off = [
                mock.patch.object(FiniteHook, method, lambda *_, **__: None)
                for method in (
                    'before_train',
                    'before_train_iter',
                    'after_train_iter',
                    'after_train_epoch',
                    'after_train',
                )
            ]
            for each in off:
                each.start()
        runner.train()
        calls[name] = watch.calls
    mock.patch.stopall()
    assert calls['with'] == calls['without']


class _Between(Hook):
    """Watches steps 2 to 5: the first one may wait, the last one must."""

    priority = 'VERY_LOW'

    def __init__(self, watch: HostSyncs) -> None:
        self.watch = watch

    def after_train_iter(self, runner: Any, *_: Any, **__: Any) -> None:
        if runner.iter == 0:
            self.watch.__enter__()
        elif runner.iter == 4:
            self.watch.__exit__(None, None, None)


def test_sync_counter_sees_a_hook_that_reads_at_once(tmp_path):
    """The same watch counts more where the numbers are read at each step."""
    watch = HostSyncs()
    runner = build(run_config(tmp_path, 6, distill=block(self_check=False)))
    runner.register_hook(_Between(watch))
    runner.train()
    assert watch.calls.count('tolist') >= 3 * 4


def test_a_lagging_device_is_waited_for_before_too_many_batches_are_held(tmp_path, monkeypatch):
    late(monkeypatch, NEVER)
    held = []

    class Watching(Hook):
        priority = 'VERY_LOW'

        def after_train_iter(self, runner: Any, *_: Any, **__: Any) -> None:
            hook = next(hook for hook in runner.hooks if isinstance(hook, FiniteHook))
            held.append(len({step.iteration for step, _ in hook._pending}))

    HOOKS.register_module(module=Watching, force=True)
    cfg = run_config(tmp_path, 20, distill=block(self_check=False), custom_hooks=[DELAYED, dict(type='Watching')])
    build(cfg).train()
    assert max(held[:-1]) == 8 and held[-1] == 0


def test_accumulation(tmp_path):
    """A step without an update is looked at as well."""
    for step in (3, 4):
        cfg = broken_run(tmp_path / str(step), 'nan', step, distill=dict(self_check=False))
        cfg.optim_wrapper.accumulative_counts = 2
        assert stopped(cfg).startswith(f'Iteration {step}: "loss_x" at level 0 is nan')
    cfg = broken_run(tmp_path / 'gradient', 'gradient', 3)
    cfg.optim_wrapper.accumulative_counts = 2
    # The gradient of two steps is one sum, which is looked at where it is used.
    assert stopped(cfg).startswith('Iteration 4: the gradient of "')


def test_student_alone(tmp_path):
    cfg = run_config(tmp_path, 6)
    cfg.optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=1e9))
    sentence = stopped(cfg)
    assert sentence.startswith('Iteration 2: "loss_') and ' at level 0 is nan' in sentence


def test_averaged_weights(tmp_path):
    cfg = broken_run(tmp_path, 'nan', 4, custom_hooks=[dict(type='EMAHook')])
    cfg.default_hooks.checkpoint.interval = 1
    assert stopped(cfg).startswith('Iteration 4: ')
    assert checkpoints(tmp_path) == ['iter_1.pth', 'iter_2.pth', 'iter_3.pth']


@host_scaler
def test_step_that_the_scaler_skips_is_no_fault(tmp_path):
    cfg = broken_run(tmp_path, 'gradient', 3)
    cfg.optim_wrapper.type = 'HostScaling'
    runner = build(cfg)
    runner.train()
    scaler = runner.optim_wrapper.loss_scaler
    assert runner.iter == 6 and scaler.get_scale() == breaking.START / 2
    assert all(torch.isfinite(value).all() for value in runner.model.state_dict().values())


@host_scaler
def test_scaler_still_lets_a_term_stop_the_run(tmp_path):
    cfg = broken_run(tmp_path, 'nan', 3)
    cfg.optim_wrapper.type = 'HostScaling'
    assert stopped(cfg).startswith('Iteration 3: "loss_x" at level 0 is nan')


@host_scaler
def test_scale_that_falls_to_nothing_is_a_fault(tmp_path):
    cfg = broken_run(tmp_path, 'gradient', -1)
    cfg.optim_wrapper.update(type='HostScaling', scale=4 * LEAST_SCALE)
    sentence = stopped(cfg)
    assert sentence.startswith('Iteration 4: the loss scale of mixed precision has fallen to 4.77e-07')


@pytest.mark.parametrize('step', [1, 3])
def test_teacher_of_nan_is_named(tmp_path, step):
    def spoil(runner: Any, *_: Any, **__: Any) -> None:
        if runner.iter + 1 != step:
            return
        with torch.no_grad():
            next(iter(runner.model.teachers.values())).model.backbone.conv1.weight.fill_(float('nan'))

    runner = build(run_config(tmp_path, 4, distill=block()))
    hook = Hook()
    hook.before_train_iter = spoil
    runner.register_hook(hook, 'VERY_HIGH')
    with pytest.raises(
        DistillError,
        match=rf'Iteration {step}: .*teacher "teacher" are not finite themselves \("backbone.conv1.weight"\)',
    ):
        runner.train()


def test_weights_that_are_broken_from_the_start(tmp_path):
    state = build(run_config(tmp_path / 'first')).model.state_dict()
    state['backbone.conv1.weight'][0] = float('nan')
    torch.save(dict(state_dict=state), tmp_path / 'broken.pth')
    cfg = run_config(tmp_path / 'second', distill=block(), load_from=str(tmp_path / 'broken.pth'))
    assert 'weight "backbone.conv1.weight" of the student is nan before the first step' in stopped(cfg)


def test_buffers_of_infinities_are_left_alone(tmp_path):
    cfg = run_config(tmp_path, 2, distill=block())
    runner = build(cfg)
    runner.model.register_buffer('mask', torch.full((2,), float('-inf')))
    runner.train()
    assert runner.iter == 2


def test_nothing_stays_on_the_run(tmp_path):
    runner = build(run_config(tmp_path, 2, distill=block()))
    runner.train()
    assert runner.model.step_observers == []
    assert 'step' not in vars(runner.optim_wrapper)


def test_largest_magnitude_is_finite_where_all_is():
    values = torch.ones(1000)
    for dtype in (torch.float32, torch.float16, torch.float64):
        for place in (0, 501, 999):
            for bad in (float('nan'), float('-inf')):
                tensor = values.to(dtype)
                tensor[place] = bad
                found = peaks('weight', [('good', values.to(dtype)), ('bad', tensor), ('count', torch.ones(2).long())])
                assert set(found) == {Label('weight', 'good'), Label('weight', 'bad')}
                assert not torch.isfinite(found[Label('weight', 'bad')])
    assert float(peaks('weight', [('a', torch.tensor([3e38, -3.2e38]))])[Label('weight', 'a')]) == pytest.approx(3.2e38)
