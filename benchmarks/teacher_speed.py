"""Time the teacher's forward pass up to its last record, plain and with each option, in turns and by one process."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, MODELS, init_default_scope

from benchmarks.loss_speed import seconds
from mmkd_plugin.algorithms import DistillAlgorithm
from mmkd_plugin.block import expand_config
from mmkd_plugin.cli import CommandParser, load_config, plain_errors, wide_console
from mmkd_plugin.errors import DistillError
from mmkd_plugin.study.one_step import one_step_config, teachers_of
from mmkd_plugin.study.runs import quiet
from mmkd_plugin.study.table import console_table, markdown_table
from mmkd_plugin.teachers.weights import RANDOM_WEIGHTS

PLAIN = dict(fuse_bn=False, channels_last=False)
HEADS = (
    'options',
    'in force, and how far records differ',
    'seconds',
    'share of plain',
    'range over the rounds',
)


def ways(gpu: bool, compiles: bool) -> dict[str, dict[str, Any]]:
    """The options that are timed, by what the table calls them.

    Args:
        gpu: Whether there is one.
        compiles: Whether ``compile`` is timed as well, which takes minutes at first.
    """
    half = 'float16' if gpu else 'bfloat16'
    found: dict[str, dict[str, Any]] = {
        'plain': dict(PLAIN),
        'fuse_bn': dict(PLAIN, fuse_bn=True),
        'channels_last': dict(PLAIN, channels_last=True),
        'fuse_bn, channels_last': dict(fuse_bn=True, channels_last=True),
        'none written': {},
        'dtype': dict(PLAIN, dtype=half),
        'fuse_bn, dtype': dict(PLAIN, fuse_bn=True, dtype=half),
        'fuse_bn, channels_last, dtype': dict(fuse_bn=True, channels_last=True, dtype=half),
    }
    if not gpu:
        found['fuse_bn, prepack'] = dict(PLAIN, fuse_bn=True, prepack=True)
        found['fuse_bn, channels_last, dtype, prepack'] = dict(
            fuse_bn=True, channels_last=True, dtype=half, prepack=True
        )
    if gpu:
        found['stream'] = dict(PLAIN, stream=True)
    if compiles:
        found['compile'] = dict(PLAIN, compile=True)
        found['fuse_bn, compile'] = dict(PLAIN, fuse_bn=True, compile=True)
        found['fuse_bn, channels_last, dtype, compile'] = dict(
            fuse_bn=True, channels_last=True, dtype=half, compile=True
        )
    return found


class Timed:
    """The teachers of a config under several sets of options, beside one student.

    Args:
        cfg: A config with a ``distill`` block; the weights are random.
        size: Side of the images in pixels.
        images: How many.
        device: Where all of it lies.
    """

    def __init__(self, cfg: Config, size: int, images: int, device: str) -> None:
        scope = cfg.default_scope
        init_default_scope(scope)
        for teacher in teachers_of(cfg.distill):
            teacher['teacher_ckpt'] = RANDOM_WEIGHTS
        run = one_step_config(cfg, scope, size, Path())
        data = dict(run.train_dataloader.dataset, one_size=True, length=images)
        dataset = DATASETS.build(data)
        self._device = device
        self._model = expand_config(run).model
        self._student = MODELS.build(self._model.architecture).to(device)
        batch = pseudo_collate([dataset[index] for index in range(images)])
        self._data = self._student.data_preprocessor(batch, training=True)

    def side(self, options: dict[str, Any]) -> tuple[Callable[[], None], str]:
        """The forward pass of the teachers with some options.

        Args:
            options: Of all teachers.

        Returns:
            What runs it, and what is in force; the pass has been run once.

        Raises:
            DistillError: If an option is refused.
        """
        config = copy.deepcopy(self._model)
        config.pop('type')
        for teacher in config.teachers.values():
            teacher.teacher_options = options
        torch.manual_seed(0)
        algorithm = DistillAlgorithm(**{**config, 'architecture': self._student}).to(self._device).train()
        needed = algorithm.distiller.teacher_records_needed()
        inputs, samples = self._data['inputs'], self._data['data_samples']
        with torch.no_grad(), algorithm.distiller.recording():
            algorithm.student(inputs, copy.deepcopy(samples), mode='loss')

        def run() -> None:
            for teacher in algorithm.teachers.values():
                teacher.run(inputs, samples, needed)

        run()
        verdicts = [str(item) for teacher in algorithm.teachers.values() for item in teacher.economy.verdicts]
        return run, ', '.join(verdicts) or '-'


def cells(
    times: Mapping[str, list[float]], notes: Mapping[str, str], refused: Mapping[str, str]
) -> Iterator[tuple[str, ...]]:
    """A row for each set of options, in shares of the plain pass round by round.

    Args:
        times: Seconds of each round by name, ``'plain'`` among them.
        notes: What is in force.
        refused: Why others were not timed.
    """
    for name, values in times.items():
        ratios = [value / plain for value, plain in zip(values, times['plain'])]
        spread = f'{min(ratios):.2f} to {max(ratios):.2f}'
        yield name, notes[name], f'{statistics.median(values):.3f}', f'{statistics.median(ratios):.2f} x', spread
    for name, reason in refused.items():
        yield name, reason, '-', '-', '-'


def main() -> None:
    """Measure and print."""
    parser = CommandParser(description=__doc__)
    parser.add_argument('config', help='path or zoo name of a config with a distill block')
    parser.add_argument('--images', type=int, default=2, help='2 by default')
    parser.add_argument('--size', type=int, default=320, help='side of the images; 320 by default')
    parser.add_argument('--rounds', type=int, default=9, help='9 by default')
    parser.add_argument('--only', nargs='+', help='options as the table names them; all by default')
    parser.add_argument('--compile', action='store_true', help='time torch.compile too, which takes minutes at first')
    parser.add_argument('--log', type=Path, default=Path('work_dirs/teacher_speed.log'), help='what the models print')
    parser.add_argument('--out', type=Path, help='Markdown file for the table')
    args = parser.parse_args()
    with plain_errors():
        gpu = torch.cuda.is_available()
        known = ways(gpu, args.compile)
        if args.only and set(args.only) - set(known):
            raise DistillError(f'--only takes names of rows: {", ".join(repr(name) for name in known)}.')
        chosen = {name: way for name, way in known.items() if not args.only or name in ('plain', *args.only)}
        cfg = load_config(args.config)
        if cfg.get('distill') is None:
            raise DistillError('The config has no distill block, so it has no teacher; name one that distils.')
        device = 'cuda' if gpu else 'cpu'
        sides: dict[str, Callable[[], None]] = {}
        notes: dict[str, str] = {}
        refused: dict[str, str] = {}
        args.log.parent.mkdir(parents=True, exist_ok=True)
        with quiet(args.log):
            timed = Timed(cfg, args.size, args.images, device)
            for name, way in chosen.items():
                try:
                    sides[name], notes[name] = timed.side(way)
                except DistillError as error:
                    refused[name] = str(error)
        times = seconds(sides, args.rounds)
        found = list(cells(times, notes, refused))
        title = f'{args.images} images of {args.size} x {args.size}, {device}, {torch.get_num_threads()} threads'
        wide_console().print(console_table(title, found, HEADS))
        if args.out:
            args.out.write_text(markdown_table(found, HEADS))


if __name__ == '__main__':
    main()
