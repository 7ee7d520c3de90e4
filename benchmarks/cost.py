"""Measure the table of docs/benchmark.md on this machine; a run that was stopped goes on where it was.

What "mmkd benchmark" takes, this takes too: --rounds, --size, --batch, --boxes, --amp, --device, --any-code.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from mmkd_plugin.cli import CommandParser, plain_errors
from mmkd_plugin.commands import benchmark
from mmkd_plugin.errors import DistillError
from mmkd_plugin.study.benchmark.results import all_results
from mmkd_plugin.study.benchmark.table import markdown

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / 'docs/benchmark'
IMAGES = ROOT / 'docs/images'

_ZOO = 'mmkd_plugin::'
_OWN = 'benchmarks/configs/'
CONFIGS = [
    f'{_ZOO}fgd/retina_r101_to_r50.py',
    f'{_ZOO}fgi/retina_r101_to_r50.py',
    f'{_ZOO}chen/retina_r101_to_r50.py',
    f'{_OWN}retina_r101_to_r50_cwd.py',
    f'{_OWN}retina_r101_to_r50_pkd.py',
    f'{_OWN}retina_r101_to_r50_fgd_chen.py',
    f'{_ZOO}fgd/faster-rcnn_r101_to_r50.py',
    f'{_ZOO}fgi/faster-rcnn_r101_to_r50.py',
    f'{_ZOO}chen/faster-rcnn_r101_to_r50.py',
    f'{_OWN}faster-rcnn_r101_to_r50_cwd.py',
    f'{_OWN}faster-rcnn_r101_to_r50_pkd.py',
    f'{_OWN}faster-rcnn_r101_to_r50_fgd_chen.py',
    f'{_OWN}pspnet_r101_to_r18_pixel.py',
    f'{_ZOO}structured_seg/pspnet_r101_to_r18_cityscapes_pixel-pair.py',
    f'{_ZOO}structured_seg/pspnet_r101_to_r18_cityscapes.py',
    f'{_OWN}pspnet_r101_to_r18_cwd.py',
    f'{_ZOO}pspnet_kd/pspnet_r50_to_r18_cityscapes.py',
]
"""The rows of the table; where the zoo has no config of a pair of models under a method, one lies beside this file."""


def picture_of(name: str) -> Path:
    """The picture of a machine's results."""
    return IMAGES / f'benchmark_{name}.png'


def tables(folder: Path = RESULTS) -> str:
    """All machines, each with its tables and its picture.

    Args:
        folder: Of the results, a file for each machine.
    """
    parts = []
    for name, results in all_results(folder).items():
        parts.append(f'### {name}\n\n{markdown(results)}')
        if picture_of(name).is_file():
            parts.append(f'![Time and memory in multiples of the student alone](images/{picture_of(name).name})')
    return '\n\n'.join(parts) or 'No machine has been measured yet: `make benchmark NAME=<name>` measures this one.'


def require_name(name: str) -> str:
    """Refuse the name of a machine that can be none of a file.

    Raises:
        DistillError: With the characters that a name may have.
    """
    if not re.fullmatch(r'[a-z0-9_]+', name):
        raise DistillError(f'--name is "{name}", but takes small letters, digits and "_", such as cpu_2_cores.')
    return name


def main() -> None:
    """Measure, and write the page."""
    parser = CommandParser(description=__doc__)
    parser.add_argument('--name', default='here', help='of the file in docs/benchmark, such as cpu_2_cores')
    parser.add_argument('--configs', nargs='+', default=CONFIGS, help='the rows; all of the table by default')
    args, others = parser.parse_known_args()
    with plain_errors(interrupted='the same command goes on.'):
        from benchmarks import pages

        folder = Path('work_dirs/benchmark') / require_name(args.name)
        status = benchmark.main([*args.configs, '--out', str(folder), *others])
        if status:
            raise SystemExit(status)
        RESULTS.mkdir(exist_ok=True)
        shutil.copy(folder / benchmark.RESULTS, RESULTS / f'{args.name}.json')
        shutil.copy(folder / benchmark.PICTURE, picture_of(args.name))
        for page in pages.write():
            print(f'written: {page}')


if __name__ == '__main__':
    main()
