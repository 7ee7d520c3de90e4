"""A kept step is repeated as it was, and what is read of it is data alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from _helpers import tiny_seg
from _helpers.breaking import broken_run
from _helpers.checkpoints import Gadget
from _helpers.tiny import block, build, run_config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from mmkd_plugin.__main__ import main
from mmkd_plugin.distillers.balance import Balance
from mmkd_plugin.engine.fault import STEP_FILE, read_step
from mmkd_plugin.engine.readings import Label
from mmkd_plugin.engine.replay import replay
from mmkd_plugin.errors import DistillError

DELAYED = dict(type='mmkd_plugin.FiniteHook', delayed=True)


def kept(cfg: Any, step: int) -> str:
    """Train until the run stops, and give the folder of the step."""
    with pytest.raises(DistillError, match=f'Iteration {step}: '):
        build(cfg).train()
    return str(Path(cfg.work_dir) / f'fault_iter_{step}')


def test_step_is_repeated_to_the_bit(tmp_path, capsys):
    """With the batch, the random numbers and the weights of the step, every finite loss is that of the run."""
    cfg = broken_run(tmp_path, 'nan', 3, level=1)
    cfg.default_hooks.checkpoint.interval = 1
    folder = kept(cfg, 3)
    assert main(['replay', folder]) == 0
    said = capsys.readouterr().out
    assert 'Weights: those before the step.' in said
    assert 'The fault is reproduced: "loss_x" at level 1 is not finite again.' in said
    row = next(line for line in said.splitlines() if 'loss_x' in line and ' 1 ' in line)
    assert 'nan' in row and 'NO' in row
    # The same run without the fault logs the losses of that step.
    healthy = broken_run(tmp_path / 'healthy', 'nan', 10**6, iterations=3)
    runner = build(healthy)
    runner.train()
    numbers = replay(folder).numbers
    logged = {name: runner.message_hub.get_scalar(f'train/{name}').data[0][2] for name in ('loss_cls', 'loss_bbox')}
    for name, value in logged.items():
        again = torch.tensor([numbers[Label('loss', name, str(level))] for level in range(3)])
        assert float(again.sum()) == pytest.approx(float(value), rel=1e-6)


def test_broken_gradient_is_repeated_by_part(tmp_path, capsys):
    folder = kept(broken_run(tmp_path, 'gradient', 2), 2)
    assert main(['replay', folder]) == 0
    said = capsys.readouterr().out
    assert 'The fault is reproduced: the gradient of "' in said and 'while all losses are' in said
    assert 'First output that is not finite: none.' in said
    gradients = replay(folder).gradients
    broken = {part for part, norm in gradients.items() if norm != norm}
    assert broken == {'backbone', 'neck', 'distiller.connectors.loss_x_level0'} and 'bbox_head' in gradients


def test_first_output_is_named(tmp_path):
    """The weights that a huge step leaves overflow in the first convolutions, not in the losses."""
    cfg = run_config(tmp_path, 4, distill=block())
    cfg.optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=1e30))
    with pytest.raises(DistillError):
        build(cfg).train()
    folder = next(tmp_path.glob('fault_iter_*'))
    found = replay(str(folder))
    assert found.first.startswith('"backbone.') and 'that is finite' in found.first
    assert found.verdict.startswith('The fault is reproduced')


def test_weights_of_the_checkpoint_stand_in_for_broken_ones(tmp_path, monkeypatch):
    """Looked at behind the update, as on a GPU without clipping."""
    from mmkd_plugin.engine.readings import Reading

    asked: list[Reading] = []

    def ready(self: Reading) -> bool:
        asked.append(self)
        return asked.count(self) > 1

    monkeypatch.setattr(Reading, 'ready', ready)
    cfg = broken_run(tmp_path, 'nan', 3, custom_hooks=[DELAYED])
    cfg.default_hooks.checkpoint.interval = 2
    folder = kept(cfg, 3)
    found = replay(folder)
    assert found.weights == f'those of "{tmp_path / "iter_2.pth"}", since the run had no finite ones left'
    assert found.verdict == 'The fault is reproduced: "loss_x" at level 0 is not finite again.'
    (tmp_path / 'iter_2.pth').unlink()
    assert replay(folder).weights.startswith('those that the run began with')


def test_update_that_broke_the_weights_is_told_apart(tmp_path):
    class Leaping(Hook):
        def before_train_iter(self, runner: Any, *_: Any, **__: Any) -> None:
            if runner.iter == 2:
                for state in runner.optim_wrapper.optimizer.state.values():
                    state['momentum_buffer'].mul_(1e38)
                runner.optim_wrapper.optimizer.param_groups[0]['lr'] = 1e9

    HOOKS.register_module(module=Leaping, force=True)
    cfg = run_config(tmp_path, 6, distill=block(), custom_hooks=[dict(type='Leaping')])
    cfg.default_hooks.checkpoint.interval = 1
    folder = kept(cfg, 3)
    assert 'after its step the weight' in (Path(folder) / 'fault.txt').read_text()
    assert replay(folder).verdict.startswith('The losses and gradients of the step are finite, so it was the update')


def test_segmentor_with_a_discriminator(tmp_path):
    """Its terms are repeated with the random mixture of the step."""
    method = dict(type='Holistic', widths=[8, 8], optimizer=dict(type='SGD', lr=1e12))
    cfg = tiny_seg.run_config(tmp_path, 6, distill=tiny_seg.block(method))
    with pytest.raises(DistillError, match='Iteration ') as error:
        build(cfg).train()
    found = replay(str(next(tmp_path.glob('fault_iter_*'))))
    assert found.kept[0].kind in ('discriminator', 'weight', 'term')
    assert str(found.kept[0].name) in str(error.value)
    assert any(label.kind == 'discriminator' for label in found.numbers)


def test_student_alone(tmp_path):
    cfg = run_config(tmp_path, 4)
    cfg.optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=1e12))
    with pytest.raises(DistillError):
        build(cfg).train()
    assert replay(str(next(tmp_path.glob('fault_iter_*')))).verdict.startswith('The fault is reproduced')


def refused(folder: Path | str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        main(['replay', str(folder)])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith('error: ') and said.count('\n') == 1
    return said


def test_folder_that_would_run_code_is_refused(tmp_path, capsys):
    mark = tmp_path / 'was_here'
    for number, state in enumerate((Gadget(os.mkdir, str(mark)), dict(batch=Gadget(os.mkdir, str(mark))))):
        folder = tmp_path / f'fault_iter_{number}'
        folder.mkdir()
        torch.save(state, folder / STEP_FILE)
        assert 'holds more than the data of a step (GLOBAL ' in refused(folder, capsys)
    assert not mark.exists()


def test_other_folders_are_refused(tmp_path, capsys):
    assert 'There is no kept step at' in refused(tmp_path / 'nowhere', capsys)
    assert 'There is no kept step at' in refused(tmp_path, capsys)
    torch.save(dict(state_dict={}), tmp_path / STEP_FILE)
    assert 'another kind of file' in refused(tmp_path, capsys)
    (tmp_path / STEP_FILE).write_bytes(b'PK\x03\x04 cut off')
    assert 'is damaged or holds more' in refused(tmp_path, capsys)


def test_structure_outside_the_list_is_refused(tmp_path):
    folder = kept(broken_run(tmp_path, 'nan', 1), 1)
    state = read_step(folder)
    state['batch']['data_samples'][0]['__structure__'] = 'subprocess.Popen'
    torch.save(state, Path(folder) / STEP_FILE)
    with pytest.raises(DistillError, match='subprocess.Popen'):
        replay(folder)


def test_batch_that_no_file_can_hold(tmp_path):
    class Own:
        pass

    cfg = broken_run(tmp_path, 'nan', 2)
    runner = build(cfg)
    loop = type(runner.build_train_loop(runner._train_loop))
    original = loop.run_iter

    def run_iter(self: Any, batch: Any) -> None:
        batch['data_samples'][0].set_metainfo(dict(own=Own()))
        original(self, batch)

    loop.run_iter = run_iter
    try:
        with pytest.raises(DistillError, match=r'Iteration 2: .*"mmkd replay'):
            build(cfg).train()
    finally:
        loop.run_iter = original
    with pytest.raises(DistillError, match=r'could not be kept, since it holds objects of type .*Own; the images are '):
        replay(str(tmp_path / 'fault_iter_2'))


def test_weight_that_finds_itself_is_not_measured_again(tmp_path, monkeypatch):
    """The step behind this one would be; the factor of a repeated one is that of the run."""
    cfg = broken_run(tmp_path, 'nan', 3, level=1)
    cfg.distill.methods.x.loss_weight = 'auto'
    folder = kept(cfg, 3)
    steps: list[Any] = []
    monkeypatch.setattr(Balance, 'update', lambda self, squares: steps.append(squares))
    assert Label('term', 'loss_x', '0') in replay(folder).numbers
    assert steps == []
