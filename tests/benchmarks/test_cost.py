"""The rows of the table of costs are configs that can be measured, and the page is that of the files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import cost
from mmkd_plugin.cli import load_config
from mmkd_plugin.errors import DistillError
from mmkd_plugin.study.benchmark.case import Case
from mmkd_plugin.study.benchmark.measure import _methods
from mmkd_plugin.study.benchmark.session import require_all_measurable


def test_every_row_can_be_measured_and_there_are_eight_methods_on_three_models(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(cost.ROOT)
    configs = {name: load_config(name) for name in cost.CONFIGS}
    require_all_measurable(configs, Case())
    methods = {(cfg.default_scope, _methods(cfg)) for cfg in configs.values()}
    # A segmentor's name is that of its head.
    models = {(cfg.model.get('decode_head') or cfg.model)['type'] for cfg in configs.values()}
    assert len(methods) >= 8 and models == {'RetinaNet', 'FasterRCNN', 'PSPHead'}


def test_own_configs_are_all_in_the_table() -> None:
    files = {f'benchmarks/configs/{file.name}' for file in (cost.ROOT / 'benchmarks/configs').glob('*.py')}
    assert files == {name for name in cost.CONFIGS if '::' not in name}


def test_each_machine_has_a_section(tmp_path: Path) -> None:
    assert 'make benchmark' in cost.tables(tmp_path)
    side = dict(seconds=[1.0, 1.0], held=1, peak=2**20, syncs=3)
    machine = dict(cpu='Abacus', cores=2, threads=1, python='3.11', torch='2.13')
    measured = dict(student='A', teacher='B', methods='FGD', sides=dict(alone=side, ours=side), missing={})
    row = dict(config='a.py', digest='', code='', batches=dict(data='own', precision='float32', device='cpu'))
    for name in ('one', 'two'):
        (tmp_path / f'{name}.json').write_text(json.dumps(dict(machine=machine, rows=[dict(row, measured=measured)])))
    text = cost.tables(tmp_path)
    assert text.index('### one') < text.index('### two') and text.count('| B to A | FGD |') == 4
    assert '2 cores of Abacus, 1 thread(s)' in text


@pytest.mark.parametrize('name', ['', 'My Machine', '../x', 'a.b'])
def test_a_name_is_that_of_a_file(name: str) -> None:
    with pytest.raises(DistillError, match='such as cpu_2_cores'):
        cost.require_name(name)
