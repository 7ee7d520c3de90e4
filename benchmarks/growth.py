"""Measure how the cost of distillation grows with the images, the batch, the boxes, the levels and the methods.

The distillation's own part is what a distilled step takes beyond the floor: the student's step and the teacher's
forward pass. A run that was stopped goes on where it was.
"""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator
from mmengine.config import Config

from benchmarks.cost import IMAGES, RESULTS, require_name
from mmkd_plugin.cli import CommandParser, load_config, plain_errors
from mmkd_plugin.errors import DistillError
from mmkd_plugin.study.benchmark.case import Case
from mmkd_plugin.study.benchmark.measure import FLOOR, OURS, measure
from mmkd_plugin.study.benchmark.results import this_machine
from mmkd_plugin.study.benchmark.table import machine_text
from mmkd_plugin.study.pictures.canvas import save
from mmkd_plugin.study.runs import code_digest, progress_bar
from mmkd_plugin.study.table import markdown_table
from mmkd_plugin.teachers import model_config
from mmkd_plugin.utilities.files import output_file

CONFIG = 'mmkd_plugin::coco_mini/fgd_retina_r34_to_r18.py'
"""A pair that is small enough for two cores: FGD from a RetinaNet R34 to an R18 of narrow layers."""

LINEAR = 1.1
"""The largest exponent that counts as linear: one of 1 is measured with an error."""

NOTHING = 0.01
"""Own memory of less than this share of the floor's is left out: the peak of the step lies elsewhere."""

HEADS = ('axis', 'from', 'to', 'own time', 'exponent', 'own memory', 'exponent', 'worse than linear')


@dataclasses.dataclass(frozen=True)
class Axis:
    """What grows.

    Attributes:
        unit: What is counted.
        values: How many.
    """

    unit: str
    values: Sequence[int]


AXES = {
    'image size': Axis('pixels of an image', [side * side for side in (128, 192, 256, 384, 512)]),
    'batch': Axis('images', [1, 2, 4, 8]),
    'boxes': Axis('boxes of an image', [0, 1, 10, 100, 1000]),
    'levels': Axis('levels of the pyramid, from the finest', [1, 2, 3, 4, 5]),
    'methods': Axis('methods, each FGD', [1, 2, 3, 4]),
}


@dataclasses.dataclass(frozen=True)
class Point:
    """The distillation's own part at one place of an axis.

    Attributes:
        seconds: Of each round, beyond those of the floor.
        floor: Bytes at the peak of a step of the floor.
        ours: Bytes at the peak of a distilled step.
    """

    seconds: list[float]
    floor: int
    ours: int


Points = Mapping[str, Mapping[int, Point]]
"""By axis and value."""


def at(axis: str, value: int) -> tuple[Config, Case]:
    """What is measured at one place of an axis; elsewhere 2 images of 256 x 256 with 10 boxes, 3 levels and FGD once.

    Args:
        axis: Of :data:`AXES`.
        value: Of its values.
    """
    cfg = load_config(CONFIG)
    cfg.distill.teacher = model_config(cfg.distill.teacher)
    cfg.distill.teacher_ckpt = 'random'
    # What a cheaper teacher saves would be taken off the own part.
    cfg.distill.teacher_options = dict(fuse_bn=False, channels_last=False)
    sides, batch, boxes = 256, 2, 10
    if axis == 'image size':
        sides = math.isqrt(value)
    elif axis == 'batch':
        batch = value
    elif axis == 'boxes':
        boxes = value
    elif axis == 'levels':
        for model in (cfg.model, cfg.distill.teacher):
            # The neck starts at the second of four stages; behind the last one it pools.
            model.neck.update(num_outs=value, end_level=value if value < 3 else -1)
            model.bbox_head.anchor_generator.strides = [8 * 2**level for level in range(value)]
    else:
        method = cfg.distill.methods.pop('fgd')
        cfg.distill.methods = {f'fgd{number}': method for number in range(value)}
    return cfg, Case((sides, sides), batch, boxes)


def exponent(values: Mapping[int, float]) -> float | None:
    """The slope of a line through the logarithms: 1 for what grows linearly.

    Args:
        values: By what they grow with; 0 has no logarithm, and is left out.

    Returns:
        The slope; None where fewer than three values are above 0.
    """
    pairs = [(math.log(x), math.log(y)) for x, y in values.items() if x > 0 and y > 0]
    if len(pairs) < 3:
        return None
    middle = [statistics.mean(side) for side in zip(*pairs)]
    spread = sum((x - middle[0]) ** 2 for x, _ in pairs)
    return sum((x - middle[0]) * (y - middle[1]) for x, y in pairs) / spread


def seconds_of(points: Mapping[int, Point]) -> dict[int, float]:
    """The median seconds of an axis."""
    return {value: statistics.median(point.seconds) for value, point in points.items()}


def bytes_of(points: Mapping[int, Point]) -> dict[int, float]:
    """The own bytes of an axis, 0 where they do not show at the peak of the step."""
    own = {value: float(point.ours - point.floor) for value, point in points.items()}
    return {value: found if found > NOTHING * points[value].floor else 0.0 for value, found in own.items()}


def rows(points: Points) -> list[tuple[str, ...]]:
    """Cells in the order of :data:`HEADS`."""
    found: list[tuple[str, ...]] = []
    for axis, line in points.items():
        time, memory = seconds_of(line), bytes_of(line)
        slopes = exponent(time), exponent(memory)
        worse = [name for name, slope in zip(('time', 'memory'), slopes) if slope is not None and slope > LINEAR]
        first, last = min(line), max(line)
        found.append(
            (
                f'{axis}: {AXES[axis].unit}',
                f'{first:,}',
                f'{last:,}',
                f'{1000 * time[first]:.1f} to {1000 * time[last]:.1f} ms',
                _slope(slopes[0]),
                f'{memory[first] / 2**20:.1f} to {memory[last] / 2**20:.1f} MiB',
                _slope(slopes[1]),
                ' and '.join(worse) or 'no',
            )
        )
    return found


def _slope(value: float | None) -> str:
    return '-' if value is None else f'{value:.2f}'


def section(folder: Path = RESULTS / 'growth') -> str:
    """What stands on the page: a table and a picture for each machine."""
    parts = []
    for file in sorted(folder.glob('*.json')):
        machine, _, points = read(file)
        parts.append(f'### {file.stem}\n\n{machine_text(machine)}\n\n{markdown_table(rows(points), HEADS)}'.rstrip())
        if picture_of(file.stem).is_file():
            parts.append(f'![The own part of distillation over each axis](images/{picture_of(file.stem).name})')
    return '\n\n'.join(parts) or 'Not measured yet: `python -m benchmarks.growth` does.'


def picture_of(name: str) -> Path:
    """The picture of a machine."""
    return IMAGES / f'growth_{name}.png'


def picture(points: Points, out: Path) -> Path:
    """Draw the own time, and the memory of a step with and without the distillation, over each axis.

    Args:
        points: What was measured.
        out: PNG to write.
    """
    figure = Figure(figsize=(2.9 * len(points), 5.6), layout='constrained')
    axes: Any = figure.subplots(2, len(points), squeeze=False)
    for column, (name, line) in enumerate(points.items()):
        time, memory = axes[:, column]
        own = {value: 1000 * seconds for value, seconds in seconds_of(line).items()}
        _curve(time, own, 'own part', color='tab:blue', marker='o')
        last = max(own)
        if own[last] > 0:
            linear = {value: own[last] * value / last for value in own}
            _curve(time, linear, 'linear', color='gray', linestyle=':')
        if 0 in own:
            time.axhline(own[0], color='tab:blue', lw=0.8, ls='--', label='at 0')
        for side, style in (('floor', dict(color='gray', marker='s')), ('ours', dict(color='tab:orange', marker='o'))):
            values = {value: getattr(point, side) / 2**20 for value, point in line.items()}
            _curve(memory, values, side, **style)
        _finish(
            time, line, f'{name}: time, exponent {_slope(exponent(own))}', AXES[name].unit, 'own time of a step, ms'
        )
        slope = _slope(exponent(bytes_of(line)))
        _finish(memory, line, f'{name}: own memory, exponent {slope}', AXES[name].unit, 'peak of a step, MiB')
    return save(figure, out)


def _curve(axis: Any, values: Mapping[int, float], label: str, **style: Any) -> None:
    """Values above 0, which alone have a place on a logarithmic axis."""
    xs = [value for value in sorted(values) if value > 0 and values[value] > 0]
    axis.plot(xs, [values[x] for x in xs], label=label, markersize=4, linewidth=1.2, **style)


def _finish(axis: Any, line: Mapping[int, Point], title: str, unit: str, what: str) -> None:
    """Logarithmic axes with plain numbers."""
    axis.set_xscale('log')
    axis.set_yscale('log')
    xs = [value for value in sorted(line) if value > 0]
    axis.set_xticks(xs, [f'{x / 1000:.0f}k' if x >= 10000 else f'{x}' for x in xs])
    axis.yaxis.set_major_locator(LogLocator(10, (1, 2, 5)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:g}'))
    axis.minorticks_off()
    axis.set_title(title, fontsize=9)
    axis.set_xlabel(unit, fontsize=8)
    axis.set_ylabel(what, fontsize=8)
    axis.tick_params(labelsize=7)
    axis.grid(alpha=0.25)
    axis.legend(fontsize=7, frameon=False)


def read(file: Path) -> tuple[dict[str, Any], str, dict[str, dict[int, Point]]]:
    """The machine, the hash of the code and the points of a file.

    Raises:
        DistillError: If it is no such file.
    """
    try:
        values = json.loads(file.read_text(encoding='utf-8'))
        points = {
            axis: {int(value): Point(**point) for value, point in line.items()} for axis, line in values['axes'].items()
        }
        return dict(values['machine']), str(values['code']), points
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DistillError(f'"{file}" holds no results of benchmarks.growth; move it away.') from error


def write(file: Path, machine: dict[str, Any], code: str, points: Points) -> None:
    """Write what :func:`read` reads."""
    axes = {axis: {value: dataclasses.asdict(point) for value, point in line.items()} for axis, line in points.items()}
    with output_file(file) as temporary:
        temporary.write_text(json.dumps(dict(machine=machine, code=code, axes=axes), indent=1) + '\n', encoding='utf-8')


def measured(file: Path, rounds: int, axes: Mapping[str, Axis] = AXES) -> dict[str, dict[int, Point]]:
    """Measure what the file does not hold yet.

    Args:
        file: The results of this machine and this code; those of others are replaced.
        rounds: How many steps of each side are timed.
        axes: What grows, and how far.

    Returns:
        All points.
    """
    machine, code = this_machine(), code_digest()
    points: dict[str, dict[int, Point]] = {}
    if file.exists():
        *origin, points = read(file)
        points = points if origin == [machine, code] else {}
    with progress_bar() as progress:
        task = progress.add_task('points', total=sum(len(axis.values) for axis in axes.values()))
        for name, axis in axes.items():
            line = points.setdefault(name, {})
            for value in axis.values:
                if value not in line:
                    progress.console.print(f'{name}: {value:,} {axis.unit}')
                    line[value] = _point(name, value, rounds)
                    write(file, machine, code, points)
                progress.advance(task)
    return points


def _point(axis: str, value: int, rounds: int) -> Point:
    sides = measure(*at(axis, value), rounds, (FLOOR, OURS)).sides
    floor, ours = sides[FLOOR], sides[OURS]
    own = [round(with_it - without, 6) for with_it, without in zip(ours.seconds, floor.seconds)]
    return Point(own, floor.peak, ours.peak)


def main() -> None:
    """Measure, draw, and write the page."""
    parser = CommandParser(description=__doc__)
    parser.add_argument('--name', default='here', help='of the file in docs/benchmark/growth, such as cpu_2_cores')
    parser.add_argument('--rounds', type=int, default=11, help='timed steps at each point; 11 by default')
    args = parser.parse_args()
    with plain_errors(interrupted='the same command goes on.'):
        from benchmarks import pages

        name = require_name(args.name)
        points = measured(RESULTS / f'growth/{name}.json', args.rounds)
        print(f'Picture: {picture(points, picture_of(name))}')
        for page in pages.write():
            print(f'written: {page}')


if __name__ == '__main__':
    main()
