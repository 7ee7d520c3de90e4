"""Two processes under each strategy: the gradients of one process, plain checkpoints, resumed by any number of them."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from _helpers.engine_run import STEPS, config, outcome
from _helpers.tiny import exact_resume, retinanet
from _helpers.two_processes import run_in_two
from mmengine.registry import MODELS

from mmkd_plugin.compat.checkpoint import load_checkpoint_file

AUTO = dict(fgd=dict(type='FGD', loss_weight='auto'), chen=dict(type='Chen', loss_weight='auto'))
HOLISTIC = dict(seg=dict(type='Holistic', widths=[8, 8], optimizer=dict(type='SGD', lr=0.1)))
DDP: dict[str, Any] = dict(strategy=dict(type='DDPStrategy'))
FSDP: dict[str, Any] = dict(strategy=dict(type='FSDPStrategy'))
NESTED: dict[str, Any] = dict(
    strategy=dict(type='FSDPStrategy', model_wrapper=dict(type='MMFullyShardedDataParallel', auto_wrap_policy='blocks'))
)
DEEPSPEED: dict[str, Any] = {
    f'zero{stage}': dict(strategy=dict(type='DeepSpeedStrategy', zero_optimization=dict(stage=stage)))
    for stage in (0, 1, 2)
}
WITH_DEEPSPEED = importlib.util.find_spec('deepspeed') is not None
RUNS: dict[str, dict] = {
    'ddp': DDP,
    'fsdp': FSDP,
    'ddp_on': {**DDP, 'resume': True},
    'fsdp_on': {**FSDP, 'resume': True},
    'ddp_auto': {**DDP, 'methods': AUTO},
    'fsdp_auto': {**FSDP, 'methods': AUTO},
    'nested_auto': {**NESTED, 'methods': AUTO},
    'recomputed_auto': {**FSDP, 'methods': AUTO, 'activation_checkpointing': ['backbone.layer3']},
    'with_cp_auto': {**DDP, 'methods': AUTO, 'model': dict(with_cp=True)},
    'compiled_auto': {**FSDP, 'methods': AUTO, 'compile': dict(backend='aot_eager')},
    'ddp_holistic': {**DDP, 'methods': HOLISTIC, 'seg': True},
    'fsdp_holistic': {**FSDP, 'methods': HOLISTIC, 'seg': True},
    'parts': dict(strategy=dict(type='FSDPStrategy', state_dict_cfg='local')),
    'averaged': {**FSDP, 'custom_hooks': [dict(type='EMAHook')]},
    **(DEEPSPEED if WITH_DEEPSPEED else {}),
    **({'zero1_on': {**DEEPSPEED['zero1'], 'resume': True}} if WITH_DEEPSPEED else {}),
}
ENGINES = ['ddp', 'fsdp', *(DEEPSPEED if WITH_DEEPSPEED else ())]


@pytest.fixture(scope='module')
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One process at the same global batch."""
    folder = tmp_path_factory.mktemp('alone')
    return dict(outcome(config(folder, 1, runner_type='mmkd_plugin.DistillRunner')), folder=folder)


@pytest.fixture(scope='module')
def together(tmp_path_factory: pytest.TempPathFactory, alone: dict[str, Any]) -> dict[str, Any]:
    """What each process ends with, by the name of the run."""
    folder = tmp_path_factory.mktemp('together')
    for name, changes in RUNS.items():
        if changes.get('resume'):
            first_step(alone['folder'], folder / name)
    (folder / 'runs.json').write_text(json.dumps(RUNS))
    run_in_two('engine_run.py', folder, folder / 'runs.json', timeout=1500)
    ranks = {name: [torch.load(folder / f'{name}_{rank}.pth', weights_only=True) for rank in (0, 1)] for name in RUNS}
    return dict(ranks, folder=folder)


def first_step(source: Path, target: Path) -> None:
    """A folder that a run goes on in from the first step of another."""
    target.mkdir()
    shutil.copy(source / 'iter_1.pth', target)
    (target / 'last_checkpoint').write_text(str(target / 'iter_1.pth'))


def assert_same(found: dict[str, Any], expected: dict[str, Any], tolerance: float = 1e-6) -> None:
    for part in ('student', 'beside'):
        assert list(found[part]) == list(expected[part])
        for key, value in expected[part].items():
            torch.testing.assert_close(found[part][key], value, rtol=1e-4, atol=tolerance, msg=key)


def test_one_process_trains_what_the_other_runner_trains(tmp_path: Path, alone: dict[str, Any]) -> None:
    found = outcome(config(tmp_path, 1, strategy=dict(type='FSDPStrategy')))
    assert found['loss'] == alone['loss']
    assert_same(found, alone, tolerance=0)


@pytest.mark.slow
@pytest.mark.parametrize('engine', ENGINES)
def test_gradients_are_those_of_one_process(together: dict[str, Any], alone: dict[str, Any], engine: str) -> None:
    """Two steps with momentum and clipping; the first rank's loss is that of its own images alone."""
    first, second = together[engine]
    assert_same(first, alone)
    assert_same(second, first)
    assert first['loss'] != second['loss']


@pytest.mark.slow
@pytest.mark.parametrize('engine', ENGINES)
def test_checkpoint_is_a_plain_student(together: dict[str, Any], engine: str) -> None:
    first, _ = together[engine]
    checkpoint = load_checkpoint_file(str(together['folder'] / engine / f'iter_{STEPS}.pth'))
    assert list(checkpoint['state_dict']) == list(first['student'])
    MODELS.build(retinanet()).load_state_dict(checkpoint['state_dict'], strict=True)
    assert all(torch.equal(value, first['student'][key]) for key, value in checkpoint['state_dict'].items())
    assert all(torch.equal(value, first['beside'][key]) for key, value in checkpoint['distill_state'].items())


@pytest.mark.slow
@exact_resume
@pytest.mark.parametrize('engine', ENGINES)
def test_one_process_goes_on_from_two(
    tmp_path: Path, together: dict[str, Any], alone: dict[str, Any], engine: str
) -> None:
    folder = tmp_path / 'run'
    first_step(together['folder'] / engine, folder)
    assert_same(outcome(config(folder, 1, runner_type='mmkd_plugin.DistillRunner', resume=True)), alone)


@pytest.mark.slow
@exact_resume
@pytest.mark.parametrize('engine', ['ddp_on', 'fsdp_on', *(['zero1_on'] if WITH_DEEPSPEED else [])])
def test_two_processes_go_on_from_one(together: dict[str, Any], alone: dict[str, Any], engine: str) -> None:
    for found in together[engine]:
        assert len(found['loss']) == STEPS
        assert_same(found, alone)


@pytest.mark.slow
def test_what_a_process_holds(together: dict[str, Any], alone: dict[str, Any]) -> None:
    """FSDP spreads weights and optimizer; the connectors and losses beside the student are whole."""
    weights = alone['held']
    assert [found['held'] for found in together['ddp']] == [weights, weights]
    assert sum(found['held'] for found in together['fsdp']) == weights
    beside = alone['optimizer'] - weights
    assert sum(found['optimizer'] for found in together['fsdp']) == weights + 2 * beside


@pytest.mark.slow
@pytest.mark.parametrize('name', ['fsdp_auto', 'nested_auto', 'recomputed_auto', 'with_cp_auto', 'compiled_auto'])
def test_weights_that_find_themselves(together: dict[str, Any], name: str) -> None:
    """Gradients are compared in the middle of a step: through shards, recomputed and compiled parts alike."""
    for found, expected in zip(together[name], together['ddp_auto']):
        assert_same(found, expected, tolerance=2e-6)
    first, second = together[name]
    assert all(torch.equal(first['beside'][key], second['beside'][key]) for key in first['beside'] if 'balance' in key)


@pytest.mark.slow
def test_discriminator(together: dict[str, Any]) -> None:
    for found, expected in zip(together['fsdp_holistic'], together['ddp_holistic']):
        assert any('discriminator' in key for key in found['beside'])
        assert_same(found, expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'sentence'),
    [
        ('parts', "strategy.state_dict_cfg is 'local', but a checkpoint of a distilled run is a whole student"),
        ('averaged', 'EMAHook averages whole weights, of which each process has a part alone under FSDPStrategy'),
    ],
)
def test_what_sharding_cannot_do(together: dict[str, Any], name: str, sentence: str) -> None:
    for found in together[name]:
        assert sentence in found['sentence']
