"""Tables of a study."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from mmkd_plugin.study.cost import Cost
from mmkd_plugin.study.runs import Outcome
from mmkd_plugin.study.table import columns, console_tables, markdown_table, rows, verdict
from mmkd_plugin.study.tasks import DETECTION, SEGMENTATION


def outcome(name, seed, points, seconds):
    metrics = {'coco/bbox_mAP': points / 100, 'coco/bbox_mAP_50': 2 * points / 100}
    return Outcome(name, seed, metrics, 'x.pth', 2**20, seconds)


GROUPS = [
    [outcome('alone', 0, 10, 1.0), outcome('alone', 1, 12, 2.0), outcome('alone', 2, 14, 9.0)],
    [outcome('distilled', 0, 15, 3.0), outcome('distilled', 1, 15, 3.0), outcome('distilled', 2, 18, 3.0)],
]


def test_mean_deviation_and_paired_gain():
    alone, distilled = rows(GROUPS, baseline='alone')
    assert alone[:5] == ('alone', '3', '12.0 ± 2.0', '24.0 ± 4.0', '-')
    assert distilled[2] == '16.0 ± 1.7'
    assert distilled[4] == '+4.0 ± 1.0'


def test_teacher_has_no_gain():
    teacher = [outcome('teacher', 0, 50, 1.0)]
    cells = rows([teacher, *([group[0]] for group in GROUPS)], baseline='alone')
    assert [row[4] for row in cells] == ['-', '-', '+5.0']


def test_times_are_seconds_or_multiples_of_the_baseline():
    assert [row[6] for row in rows(GROUPS, baseline='alone')] == ['2.000', '3.000']
    assert [row[6] for row in rows(GROUPS, baseline='alone', relative=True)] == ['1.00 x', '1.50 x']


def test_size_and_time_at_use():
    costs = {'alone': Cost(2_500_000, 3_250_000_000, 0.02), 'distilled': Cost(2_500_000, None, 0.03)}
    alone, distilled = rows(GROUPS, baseline='alone', costs=costs)
    assert alone[7:] == ('1.00 MiB', '2.50 M', '3.25 G', '20.0')
    assert distilled[8:] == ('2.50 M', '-', '30.0')
    assert [row[10] for row in rows(GROUPS, 'alone', relative=True, costs=costs)] == ['1.00 x', '1.50 x']
    assert rows(GROUPS, baseline='alone')[0][8:] == ('-', '-', '-')


@pytest.mark.parametrize(
    ('differences', 'expected'),
    [
        ([4, 5, 3], 'gains'),
        ([-4, -5, -3], 'loses'),
        ([4, -3, 1], 'no difference beyond the spread'),
        ([-1, 0.5, -1], 'no difference beyond the spread'),
        ([0, 0], 'no difference beyond the spread'),
        ([9], '-'),
    ],
)
def test_verdict_is_the_mean_against_the_spread_of_the_gains(differences, expected):
    assert verdict(differences) == expected


def test_verdict_is_of_paired_seeds():
    alone, distilled = rows(GROUPS, baseline='alone')
    assert alone[5] == '-'
    assert distilled[5] == 'gains'
    assert rows(GROUPS[::-1], baseline='distilled')[1][5] == 'loses'


def test_markdown():
    assert markdown_table([('a', '1')], ('name', 'value')) == '| name | value |\n| --- | ---: |\n| a | 1 |\n'


def test_a_terminal_of_100_columns_holds_what_was_reached_and_what_it_costs():
    out = io.StringIO()
    console = Console(file=out, width=100)
    costs = {'alone': Cost(758_000, 60_000_000, 0.0117), 'distilled': Cost(758_000, 60_000_000, 0.0107)}
    cells = rows(GROUPS, baseline='alone', costs=costs)
    for table in console_tables(DETECTION, cells):
        console.print(table)
    lines = out.getvalue().splitlines()
    shown = [[cell.strip() for cell in line.strip('│').split('│')] for line in lines if line.startswith('│')]
    assert shown == [list(row[:6]) for row in cells] + [[row[0], *row[6:]] for row in cells]


def test_columns_follow_the_task():
    alone = Outcome('alone', 0, {'mIoU': 0.5, 'mAcc': 0.25, 'aAcc': 0.9}, 'x.pth', 2**20)
    cells = rows([[alone]])
    assert columns(SEGMENTATION)[2:4] == ('mIoU', 'mAcc')
    assert cells[0][2:4] == ('50.0', '25.0')
    assert columns(DETECTION, relative=True) == (
        'model',
        'seeds',
        'mAP',
        'AP50',
        'gain',
        'verdict',
        'time per iteration',
        'weights',
        'parameters',
        'FLOPs',
        'time per image',
    )
