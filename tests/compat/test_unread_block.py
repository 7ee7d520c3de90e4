"""A distill block that nothing would read is refused, whoever the runner is; what others write is left alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from _helpers.tiny import block, build, retinanet, run_config

from mmkd_plugin.block import expand_config
from mmkd_plugin.block.block import WrittenBlock
from mmkd_plugin.cli import build_runner
from mmkd_plugin.compat.unread_block import BLOCK_KEYS, refuse_misspelt_block
from mmkd_plugin.engine import DistillRunner
from mmkd_plugin.errors import DistillError
from mmkd_plugin.utilities.settings import settings_of

UNREAD = r'has a distill block, but its runner is {}, .*set runner_type="mmkd_plugin.{}"'
MISSPELT = dict(methods=dict(fgd=dict(loss_weight=0.5)))
WITHOUT_START_UP = """
import sys
from mmengine.runner import Runner
assert 'mmkd_plugin' not in sys.modules and not hasattr(Runner.train, '__wrapped__')
import mmkd_plugin
assert hasattr(Runner.train, '__wrapped__')
train = Runner.train
mmkd_plugin.config_hook.install()
print(Runner.train is train)
"""


def test_keys_are_those_of_the_block() -> None:
    assert set(BLOCK_KEYS) == set(settings_of(WrittenBlock))


@pytest.mark.parametrize('runner_type', ['Runner', None])
def test_stock_runner_refuses_to_train(tmp_path: Path, runner_type: str | None) -> None:
    runner = build(run_config(tmp_path, distill=block(), runner_type=runner_type))
    with pytest.raises(DistillError, match=UNREAD.format('Runner', 'DistillRunner')) as caught:
        runner.train()
    assert '\n' not in str(caught.value)
    assert not list(tmp_path.glob('*.pth'))


@pytest.mark.parametrize('strategy', [None, dict(type='SingleDeviceStrategy'), dict(type='FSDPStrategy')])
def test_runner_with_strategies_is_refused(tmp_path: Path, strategy: dict | None) -> None:
    cfg = run_config(tmp_path, distill=block(), runner_type='FlexibleRunner', strategy=strategy)
    with pytest.raises(DistillError, match=UNREAD.format('FlexibleRunner', 'FlexibleDistillRunner')):
        build(cfg)


def test_runner_with_strategies_trains_without_a_block(tmp_path: Path) -> None:
    build(run_config(tmp_path, iterations=1, runner_type='FlexibleRunner')).train()
    assert (tmp_path / 'iter_1.pth').exists()


def test_stock_runner_tests_the_student(tmp_path: Path) -> None:
    data = dict(
        batch_size=2,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=dict(type='TinyBoxes', length=2),
    )
    results = dict(type='DumpDetResults', out_file_path=str(tmp_path / 'out.pkl'))
    test: dict[str, Any] = dict(test_dataloader=data, test_cfg=dict(type='TestLoop'), test_evaluator=results)
    build(run_config(tmp_path, distill=block(), runner_type=None, **test)).test()
    assert (tmp_path / 'out.pkl').exists()


def test_our_tools_refuse_the_stock_runner_but_need_no_runner_type(tmp_path: Path) -> None:
    cfg = run_config(tmp_path, iterations=1, distill=block(), runner_type='Runner')
    with pytest.raises(DistillError, match=UNREAD.format('Runner', 'DistillRunner')):
        build_runner(cfg).train()
    cfg.pop('runner_type')
    cfg.experiment_name = tmp_path.name
    assert isinstance(build_runner(cfg), DistillRunner)


@pytest.mark.parametrize('other', [dict(x=1), 'light', None, dict(ratio=0.5, layers=[1, 2])])
def test_foreign_entry_of_the_same_name_is_left_alone(tmp_path: Path, other: Any) -> None:
    build(run_config(tmp_path, iterations=1, distill=other, runner_type=None)).train()
    assert (tmp_path / 'iter_1.pth').exists()


@pytest.mark.parametrize('runner_type', ['Runner', 'mmkd_plugin.DistillRunner'])
@pytest.mark.parametrize('name', ['distil', 'Distill', 'distll', 'ditsill'])
def test_misspelt_block_is_refused(tmp_path: Path, name: str, runner_type: str) -> None:
    changes: dict[str, Any] = {name: MISSPELT, 'runner_type': runner_type}
    if 'Distill' in runner_type:
        changes['distill'] = block()
    with pytest.raises(DistillError, match=f'"{name}" in the config is read by nothing: did you mean "distill"'):
        build(run_config(tmp_path, **changes)).train()


def test_misspelt_block_is_refused_where_a_config_is_printed() -> None:
    with pytest.raises(DistillError, match='"distil" in the config'):
        expand_config(run_config('unused', distill=block(), distil=MISSPELT))


@pytest.mark.parametrize(
    'entries',
    [
        dict(distiller=dict(type='mmrazor.ConfigurableDistiller', teacher_recorders=dict())),
        dict(distiller=dict(teacher_recorders=dict(neck=dict(type='ModuleOutputs')))),
        dict(distill_interval=5, distilled=True),
        dict(distillation=dict(teacher='x')),
        dict(model=dict(distiller=dict(type='x'))),
    ],
)
def test_names_of_others_are_no_misspelt_blocks(entries: dict) -> None:
    refuse_misspelt_block(dict(entries, distill=block()))


def test_students_config_holds_no_distiller(tmp_path: Path) -> None:
    model = dict(retinanet(), distiller=dict(type='x'))
    cfg = run_config(tmp_path, model=model, distill=block())
    for attempt in (build, expand_config):
        with pytest.raises(DistillError, match=r'"model\.distiller" is no argument of the student, RetinaNet; write'):
            attempt(cfg)


def test_import_of_the_plugin_does_without_the_start_up_file() -> None:
    environment = {**os.environ, 'MMKD_NO_STARTUP': '1', 'OMP_NUM_THREADS': '1'}
    command = [sys.executable, '-W', 'ignore', '-c', WITHOUT_START_UP]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == 'True', done.stderr
