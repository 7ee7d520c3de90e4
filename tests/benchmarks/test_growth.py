"""Growth is a slope that can be worked out by hand, along axes on which one thing changes at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mmengine.registry import MODELS, init_default_scope

from benchmarks import growth
from benchmarks.growth import AXES, Axis, Point, at, exponent, measured, picture, read, rows
from mmkd_plugin.errors import DistillError
from mmkd_plugin.study.benchmark.measure import FLOOR, OURS, Measured, Side


def points(power: float) -> dict[int, Point]:
    return {x: Point([float(x**power)] * 3, 1024, 1024 + int(1024 * x**power)) for x in (1, 2, 4, 8)}


@pytest.mark.parametrize('power', [0.0, 0.5, 1.0, 2.0])
def test_a_power_is_found(power: float) -> None:
    assert exponent({x: 3 * x**power for x in (1, 2, 4, 8)}) == pytest.approx(power)


def test_zero_has_no_logarithm() -> None:
    assert exponent({0: 5.0, 1: 1.0, 10: 10.0, 100: 100.0}) == pytest.approx(1.0)
    assert exponent({0: 5.0, 1: 1.0, 2: 2.0}) is None and exponent({1: -1.0, 2: 0.0, 3: 1.0}) is None


def test_what_is_worse_than_linear_is_said() -> None:
    (linear,) = rows({'batch': points(1)})
    (square,) = rows({'batch': points(2)})
    assert linear[4] == '1.00' and linear[-1] == 'no'
    assert square[4] == '2.00' and square[-1] == 'time and memory'


def test_memory_that_does_not_show_at_the_peak_has_no_exponent() -> None:
    line = {x: Point([float(x)], 10_000, 10_000 + more) for x, more in ((1, -5), (2, 50), (4, 99))}
    assert growth.bytes_of(line) == {1: 0, 2: 0, 4: 0}
    assert rows({'batch': line})[0][5:7] == ('0.0 to 0.0 MiB', '-')


def test_one_thing_changes_along_an_axis() -> None:
    plain = at('batch', 2)[1]
    assert (plain.size, plain.batch, plain.boxes) == ((256, 256), 2, 10)
    assert at('image size', 128 * 128)[1].size == (128, 128)
    assert at('batch', 8)[1].batch == 8 and at('boxes', 1000)[1].boxes == 1000
    assert list(at('methods', 3)[0].distill.methods) == ['fgd0', 'fgd1', 'fgd2']


@pytest.mark.parametrize('levels', AXES['levels'].values)
def test_levels_are_the_finest_ones(levels: int) -> None:
    import torch

    cfg, _ = at('levels', levels)
    init_default_scope('mmdet')
    for config in (cfg.model, cfg.distill.teacher):
        model = MODELS.build(config)
        maps = model.extract_feat(torch.zeros(1, 3, 256, 256))
        assert [feature.shape[-1] for feature in maps] == [32, 16, 8, 4, 2][:levels]


def test_a_killed_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def fake(cfg: Any, case: Any, rounds: int, sides: Any) -> Measured:
        asked.append(case.batch)
        if asked == [1, 2]:
            raise KeyboardInterrupt
        sides = {FLOOR: Side([1.0] * rounds, 0, 100, 0), OURS: Side([1.0 + case.batch] * rounds, 0, 150, 0)}
        return Measured(sides=sides)

    monkeypatch.setattr(growth, 'measure', fake)
    file, axes = tmp_path / 'here.json', {'batch': Axis('images', [1, 2, 4])}
    with pytest.raises(KeyboardInterrupt):
        measured(file, 2, axes)
    found = measured(file, 2, axes)
    assert asked == [1, 2, 2, 4]
    assert found == {'batch': {value: Point([float(value)] * 2, 100, 150) for value in (1, 2, 4)}}
    assert read(file)[2] == found
    monkeypatch.setattr(growth, 'code_digest', lambda: 'another')
    assert measured(file, 2, axes) == found and len(asked) == 7


def test_a_file_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    file = tmp_path / 'here.json'
    file.write_text('[]')
    with pytest.raises(DistillError, match='holds no results of benchmarks.growth'):
        read(file)


def test_the_picture_and_the_section(tmp_path: Path) -> None:
    line = {0: Point([0.001], 1024, 2048), **points(1)}
    assert picture({'boxes': line, 'batch': points(2)}, tmp_path / 'x.png').read_bytes().startswith(b'\x89PNG')
    growth.write(
        tmp_path / 'here.json', dict(cpu='Abacus', cores=2, threads=1, python='3', torch='2'), 'x', {'boxes': line}
    )
    text = growth.section(tmp_path)
    assert '### here' in text and '| boxes: boxes of an image | 0 | 8 |' in text
    assert 'benchmarks.growth' in growth.section(tmp_path / 'nowhere')
