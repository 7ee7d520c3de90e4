"""Bytes and times of a projection, by arithmetic done by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from _helpers.tiny import block, run_config

from benchmarks.projection import Sizes, main, parse, sent, sizes_of, stored, table, times
from mmkd_plugin.errors import DistillError

SIZES = Sizes(student=800, beside=100, teachers=5000, state=1)


@pytest.mark.parametrize(
    ('engine', 'one', 'eight'),
    [
        # 900 weights, gradients and momenta of 4 bytes.
        ('DDP', 10800, 10800),
        # 100 student weights and 100 others, three numbers each.
        ('FSDP', 10800, 2400),
        # Two whole numbers for each weight, and 2 / 8 of momenta and copies.
        ('ZeRO 1', 14400, 8100),
        # One whole number, and 3 / 8.
        ('ZeRO 2', 14400, 4950),
    ],
)
def test_stored(engine: str, one: float, eight: float) -> None:
    assert stored(engine, SIZES, 1) == one
    assert stored(engine, SIZES, 8) == eight


def test_sent() -> None:
    """A ring sends 7 / 8 of all bytes twice."""
    assert sent('DDP', SIZES, 1) == 0
    assert sent('DDP', SIZES, 8) == sent('FSDP', SIZES, 8) == sent('ZeRO 1', SIZES, 8) == 6300
    assert sent('FSDP', SIZES, 8, nested=True) == 6300 + 2800


def test_times() -> None:
    assert times(0.5, 0.2) == (0.5, 0.7)
    assert times(0.5, 0.8) == (0.8, 1.3)


def test_table() -> None:
    """8 processes in two machines: 6300 bytes at 6300 bytes a second, beside a step of a second."""
    measured = ['--step', '1', '--images', '2', '--within', '1', '--between', '6.3e-6', '--per-machine', '4']
    _, rows = table(SIZES, parse(['x.py', '--processes', '1', '8', *measured]))
    assert rows[0][4:] == ['1.000 to 1.000', '2 to 2', '1.00 to 1.00']
    assert rows[1][4:] == ['1.000 to 2.000', '8 to 16', '0.50 to 1.00']


def test_a_time_needs_all_measurements() -> None:
    with pytest.raises(DistillError, match='--step needs --images, --within and --between, all of them measured'):
        parse(['x.py', '--step', '1', '--images', '2'])


def test_sizes_of_a_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cfg = run_config(tmp_path / 'run', distill=block(teacher_ckpt='nowhere.pth'))
    # A teacher within the config would need the file, which is not read here.
    cfg.dump(tmp_path / 'config.py')
    sizes = sizes_of(str(tmp_path / 'config.py'))
    assert sizes.student > 0 and sizes.beside > 0 and sizes.teachers > sizes.student and sizes.state == 1
    main([str(tmp_path / 'config.py'), '--processes', '8', '--markdown'])
    printed = capsys.readouterr().out
    assert '2 (N - 1) / N' in printed and f'S = {sizes.student:,}' in printed
    assert f'| DDP | 8 | {stored("DDP", sizes, 8) / 1e6:.0f} |' in printed
