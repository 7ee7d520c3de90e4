"""``mmkd export``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmkd_plugin.cli import add_config_options, command_parser, read_config


def main(arguments: Sequence[str]) -> int:
    """Write a checkpoint as a plain model and say what was done."""
    args = _parser().parse_args(arguments)

    from mmkd_plugin.study.export import export_checkpoint

    target = args.out or _beside(args.checkpoint, args.part)
    done = export_checkpoint(read_config(args), args.checkpoint, target, args.part)
    source = Path(args.checkpoint)
    size = _mebibytes(source.stat().st_size) if source.is_file() else ''
    averages = ', the averages of EMAHook' if done.averages else ''
    print(f'{args.checkpoint}: {done.entries[0]} entries{size}{done.notes}{averages}')
    if done.left_out:
        print(f'Left out: {", ".join(done.left_out)}.')
    equal = f'{done.compared} on a made-up image are equal' if done.compared else 'every weight is equal'
    print(f'Loaded strictly into the stock {done.model}: {equal}.')
    print(f'{target}: {done.entries[1]} entries{_mebibytes(done.size)}')
    return 0


def _mebibytes(size: int) -> str:
    return f', {size / 2**20:.2f} MiB'


def _beside(checkpoint: str, part: str) -> Path:
    """A name of its own in the folder of the checkpoint, in this one for what is downloaded."""
    path = Path(checkpoint)
    folder = path.parent if path.is_file() else Path()
    return folder / f'{path.stem}_{part.replace(".", "_")}.pth'


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        'export',
        "Write one model of a checkpoint (of our runs, MMRazor's, the authors' FGD, behind a wrapper, averaged) as a\n"
        'plain file of the stock package. It is loaded strictly into the stock model, which must give equal outputs;\n'
        'what does not match is refused, with its keys.',
        'mmkd export distilled.pth --config mmkd_plugin::coco_mini/pspnet_r18.py --out work_dirs/student.pth',
    )
    parser.add_argument('checkpoint', help='file of a training run, or its address')
    parser.add_argument(
        '--config', required=True, help='stock config of the model, or one with a distill block: a file, or a zoo name'
    )
    parser.add_argument('-o', '--out', type=Path, help='file to write; <checkpoint>_<part>.pth by default')
    parser.add_argument(
        '--part',
        default='student',
        help='student (the default), teacher, or what stands before the keys of another model in the file',
    )
    add_config_options(parser)
    return parser
