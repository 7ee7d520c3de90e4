"""What the command lines share refuses mistakes before anything is built."""

from __future__ import annotations

import argparse
import importlib.util
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from _helpers.tiny import block, run_config
from torch import distributed

from mmkd_plugin.cli import add_common_arguments, build_runner, leave_group, read_config
from mmkd_plugin.errors import DistillError

TOOLS = Path(__file__).parents[1] / 'tools'
SET_BY_LAUNCHERS = ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT', 'SLURM', 'OMPI')


@pytest.fixture()
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A config file, and no launcher around."""
    for name in [name for name in os.environ if name.startswith(SET_BY_LAUNCHERS)]:
        monkeypatch.delenv(name)
    # Reading a config sets it.
    monkeypatch.setenv('LOCAL_RANK', '0')
    run_config(tmp_path / 'runs', distill=block()).dump(tmp_path / 'mine.py')
    return str(tmp_path / 'mine.py')


def read(*arguments: str) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument('config')
    add_common_arguments(parser)
    read_config(parser.parse_args(list(arguments)))


@pytest.mark.parametrize(
    ('launcher', 'variable', 'script'),
    [
        ('pytorch', 'RANK', 'tools/dist_train.sh'),
        ('slurm', 'SLURM_PROCID', 'tools/slurm_train.sh'),
        ('mpi', 'OMPI_COMM_WORLD_LOCAL_RANK', 'mpirun'),
    ],
)
def test_launcher_that_did_not_start_the_process(config: str, launcher: str, variable: str, script: str) -> None:
    message = rf'--launcher {launcher} is for .* has no {variable}; .*{script}.*leave --launcher out'
    with pytest.raises(DistillError, match=message) as caught:
        read(config, '--launcher', launcher)
    assert '\n' not in str(caught.value)


def test_launcher_that_did(config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT'):
        monkeypatch.setenv(name, '1')
    read(config, '--launcher', 'pytorch')
    read(config)


def test_misspelt_block_in_the_options(config: str) -> None:
    with pytest.raises(DistillError, match='"distil" in the config is read by nothing: did you mean "distill"'):
        read(config, '--cfg-options', 'distil.methods.fgd.loss_weight=0.5')
    read(config, '--cfg-options', 'distill.methods.fgd.loss_weight=0.5')


def test_two_recipes(tmp_path: Path, config: str) -> None:
    recipes = ['mmkd_plugin::_base_/fgd/one_stage.py', 'mmkd_plugin::_base_/pkd/neck.py']
    Path(config).write_text(f'_base_ = {recipes}\n')
    with pytest.raises(DistillError, match=r'^Two files of one _base_ bring a distill block each'):
        read(config)


def test_option_below_an_inherited_text(tmp_path: Path, config: str) -> None:
    Path(config).write_text("distill = dict(teacher='a.py')\n")
    message = r'^--cfg-options distill\.teacher\.type=RetinaNet cannot be applied .*something on this path is no dict'
    with pytest.raises(DistillError, match=message):
        read(config, '--cfg-options', 'distill.teacher.type=RetinaNet')


@pytest.mark.parametrize('kind', ['mmkd_plugin.DistilRunner', 'DistillRuner'])
def test_runner_that_does_not_exist(tmp_path: Path, kind: str) -> None:
    message = rf'runner_type is "{kind}", which is no runner: did you mean "mmkd_plugin\.DistillRunner"'
    with pytest.raises(DistillError, match=message):
        build_runner(run_config(tmp_path, distill=block(), runner_type=kind))


def join_group() -> None:
    distributed.init_process_group('gloo', store=distributed.HashStore(), rank=0, world_size=1)


def test_group_is_left_where_there_is_one() -> None:
    join_group()
    for _ in range(2):
        leave_group()
        assert not distributed.is_initialized()


@pytest.mark.parametrize(('tool', 'arguments'), [('train', []), ('test', ['student.pth'])])
def test_tools_leave_their_group(
    tool: str, arguments: list[str], config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = importlib.util.spec_from_file_location(tool, TOOLS / f'{tool}.py')
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, 'build_runner', lambda cfg: SimpleNamespace(train=join_group, test=join_group))
    module.main([config, *arguments, '--work-dir', str(tmp_path)])
    assert not distributed.is_initialized()
