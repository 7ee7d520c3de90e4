"""How far two runs may differ: which are trained, and what is made of them."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import spread
from mmkd_plugin.study.compare import Comparison
from mmkd_plugin.study.runs import Outcome


def test_every_seed_once_and_the_first_on_every_set():
    comparison = Comparison('student.py', {'fgd': 'fgd.py'}, [0], Path('runs'))
    trainings = spread.wanted(comparison, ['avx512', 'avx2', 'sse41'])
    own = [(one.seed, one.instructions) for one in trainings if one.name == 'fgd']
    assert own == [(0, 'avx512'), (1, 'avx2'), (2, 'sse41'), (3, 'avx512'), (4, 'avx2'), (0, 'avx2'), (0, 'sse41')]
    assert len(trainings) == 14 and len({one.work_dir for one in trainings}) == 14


def test_deviations_are_told_apart(monkeypatch, tmp_path):
    def outcome(seed, points, instructions):
        metrics = {'coco/bbox_mAP': points / 100, 'coco/bbox_mAP_50': 0.5}
        return Outcome('fgd', seed, metrics, '', 0, instructions=instructions)

    runs = [outcome(0, 30, 'avx512'), outcome(1, 34, 'avx2'), outcome(0, 31, 'avx2')]
    file = tmp_path / 'spread.json'
    file.write_text(json.dumps(spread.numbers('retina', runs)))
    monkeypatch.setattr(spread, 'FILE', file)
    # Over seeds: 30 and 34; over sets: 30 and 31; over all: the three.
    row = '| retina | fgd | 31.7 | 3 | 2.8 (2) | 0.7 (2) | 2.1 | 30.0 to 34.0 |'
    assert spread.spread_table().splitlines()[-1] == row
