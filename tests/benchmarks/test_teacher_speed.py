"""The table of a cheaper teacher compares passes of the same teacher on the same images."""

from __future__ import annotations

import pytest
from _helpers.precision import allow_half
from _helpers.tiny import block, run_config

from benchmarks.teacher_speed import Timed, cells, ways
from mmkd_plugin.errors import DistillError


@pytest.fixture(scope='module')
def timed():
    return Timed(run_config('unused', distill=block()), size=64, images=2, device='cpu')


def test_options_are_in_force(timed, monkeypatch):
    allow_half(monkeypatch)
    run, note = timed.side(ways(False, False)['fuse_bn, channels_last, dtype'])
    assert note.startswith('fuse_bn (20 of 20 batch norms, ') and 'channels_last (' in note and 'dtype (bfl' in note
    run()
    assert timed.side(ways(False, False)['plain'])[1] == '-'


def test_what_is_refused_has_a_reason(timed):
    with pytest.raises(DistillError, match='"teacher_options.fuse_bn" changes'):
        timed.side(dict(fuse_bn=True, tolerance=1e-12))


def test_what_is_timed():
    assert 'compile' not in ways(False, False) and 'compile' in ways(False, True)
    assert ways(False, False)['dtype']['dtype'] == 'bfloat16' and ways(True, False)['dtype']['dtype'] == 'float16'
    assert 'stream' in ways(True, False) and 'stream' not in ways(False, False)


def test_shares_are_taken_round_by_round():
    times = dict(plain=[1.0, 2.0, 4.0], other=[0.5, 1.0, 3.0])
    rows = list(cells(times, dict(plain='-', other='fuse_bn'), dict(third='refused')))
    assert rows == [
        ('plain', '-', '2.000', '1.00 x', '1.00 to 1.00'),
        ('other', 'fuse_bn', '1.000', '0.50 x', '0.50 to 0.75'),
        ('third', 'refused', '-', '-', '-'),
    ]
