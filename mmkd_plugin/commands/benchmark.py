"""``mmkd benchmark``."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from mmkd_plugin.cli import add_config_options, command_parser, load_config, override, wide_console
from mmkd_plugin.errors import DistillError

RESULTS, TABLE, PICTURE = 'results.json', 'table.md', 'benchmark.png'
"""What is written into the folder."""


def main(arguments: Sequence[str]) -> int:
    """Measure configs one after another; the status is 1 where one cannot be measured."""
    args = _parser().parse_args(arguments)
    size = _size(args.size)
    batch, boxes = _count('batch', args.batch), _count('boxes', args.boxes, least=0)
    rounds = _count('rounds', args.rounds) or 1

    import torch

    from mmkd_plugin.study.benchmark.case import Case
    from mmkd_plugin.study.benchmark.picture import picture
    from mmkd_plugin.study.benchmark.results import results_of
    from mmkd_plugin.study.benchmark.session import measure_all, require_all_measurable
    from mmkd_plugin.study.benchmark.table import MEMORY_HEADS, TIME_HEADS, markdown, memory_rows, time_rows
    from mmkd_plugin.study.table import console_table
    from mmkd_plugin.utilities.files import output_file

    device = args.device or ('cuda' if torch.cuda.is_available() else 'cpu')
    case = Case(size, batch, boxes, args.amp, device, args.data)
    configs = {name: load_config(name) for name in args.configs}
    for cfg in configs.values():
        override(cfg, args.cfg_options)
    require_all_measurable(configs, case)
    file = args.out / RESULTS
    results = results_of(file, args.machine)
    rows, failed = measure_all(configs, case, rounds, results, file, args.any_code, args.traceback)
    if rows:
        console = wide_console()
        console.print(console_table('Time of a step, in multiples of the student alone', time_rows(rows), TIME_HEADS))
        console.print(console_table('Peak memory of a step, likewise', memory_rows(rows), MEMORY_HEADS))
        for reason in dict.fromkeys(reason for row in rows for reason in row.measured.missing.values()):
            print(f'MMRazor, -: {reason}')
    if results.rows:
        with output_file(args.out / TABLE) as temporary:
            temporary.write_text(markdown(results) + '\n', encoding='utf-8')
        print(f'All numbers: {file}')
        print(f'All tables: {args.out / TABLE}')
        print(f'Picture: {picture(results.rows, args.out / PICTURE)}')
    return 1 if failed else 0


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    found = re.fullmatch(r'(\d+)(?:x(\d+))?', text)
    height, width = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not height or not width:
        raise DistillError(f'--size is "{text}", but takes height and width in pixels, such as 800x1344.')
    return height, width


def _count(option: str, text: str | None, least: int = 1) -> int | None:
    if text is None:
        return None
    if not text.isdigit() or int(text) < least:
        raise DistillError(f'--{option} is "{text}", but takes a whole number of at least {least}.')
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        'benchmark',
        'Measure what distillation costs: a training step of the student alone, of the floor (the same, and the\n'
        'teacher without gradient to the last module that is read), of ours, and of MMRazor where it has an equal\n'
        'loss, in turns in one process: time, peak memory and host syncs. Images are made up, and nothing is\n'
        'downloaded. Configs come one after another; the same command goes on where it was stopped.',
        'mmkd benchmark mmkd_plugin::coco_mini/fgd_retina_r34_to_r18.py --size 128x128 --rounds 3',
    )
    parser.add_argument('configs', nargs='+', metavar='CONFIG', help='with a distill block: a file, or a zoo name')
    parser.add_argument('--size', metavar='HxW', help='of the images; 320x320 for detectors, 256x256 for segmentors')
    parser.add_argument('--batch', metavar='N', help='images of a batch; 2 by default')
    parser.add_argument('--boxes', metavar='N', help='on each image of a detector; 7 by default')
    parser.add_argument('--rounds', metavar='N', default='9', help='timed steps of each side; 9 by default')
    parser.add_argument('--amp', action='store_true', help='half precision: float16 on a GPU, bfloat16 on the CPU')
    parser.add_argument('--device', metavar='DEVICE', help='cpu, cuda, or cuda:1; a GPU by default where there is one')
    parser.add_argument('--data', action='store_true', help="the first batches of the config's own data")
    parser.add_argument(
        '--out', type=Path, default=Path('work_dirs/benchmark'), metavar='DIR', help='gets JSON, tables and picture'
    )
    parser.add_argument('--machine', default='', metavar='TEXT', help='a few words about this machine, for the tables')
    parser.add_argument('--any-code', action='store_true', help='keep results although the code of the plugin changed')
    add_config_options(parser)
    return parser
