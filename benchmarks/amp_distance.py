"""Train every method in mixed precision and in float32 for a few dozen steps, and compare the terms."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import statistics
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from mmcv.ops.nms import NMSop
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from rich.progress import track
from torch import Tensor, nn

from mmkd_plugin.cli import CommandParser, plain_errors, wide_console
from mmkd_plugin.errors import DistillError, nearest
from mmkd_plugin.study.runs import new_runner, quiet
from mmkd_plugin.study.table import console_table, markdown_table

TESTS = Path(__file__).resolve().parents[1] / 'tests'
STEPS = 50
LAST = 10
"""Over how many steps at the end terms are averaged."""
RATE = 0.002
"""The learning rate; at 0.01 the small models amplify any rounding, in float32 too, and nothing would be measured."""
ALLOWED = 0.05
"""How far the sum of a method's terms may lie from that of float32 at the end, as a share of it."""
HEADS = ('method', 'models', 'terms in float32', 'in mixed precision', 'distance', 'task loss, distance')


@dataclasses.dataclass(frozen=True)
class Case:
    """A method on small models.

    Attributes:
        method: Its entry in ``distill.methods``.
        family: Of both models: ``'retinanet'``, ``'faster_rcnn'`` or ``'pspnet'``.
    """

    method: dict[str, Any]
    family: str

    @property
    def label(self) -> str:
        """What the table calls it."""
        loss = self.method.get('loss')
        return self.method['type'] + (f' ({loss["type"]})' if loss else '')


CASES: dict[str, Case] = {
    'FGD': Case(dict(type='FGD'), 'retinanet'),
    'FGD, two stages': Case(dict(type='FGD'), 'faster_rcnn'),
    'FGI': Case(dict(type='FGI', base_size=8), 'retinanet'),
    'Chen': Case(dict(type='Chen'), 'retinanet'),
    'Chen, two stages': Case(dict(type='Chen'), 'faster_rcnn'),
    'Feature, PKD': Case(dict(type='Feature', loss=dict(type='PKDLoss')), 'retinanet'),
    'Feature, CWD': Case(dict(type='Feature', loss=dict(type='ChannelWiseDivergence')), 'pspnet'),
    'PixelWise': Case(dict(type='PixelWise'), 'pspnet'),
    'PairWise': Case(dict(type='PairWise'), 'pspnet'),
    'Holistic': Case(dict(type='Holistic', widths=[8, 16]), 'pspnet'),
    'PSPNetKD': Case(dict(type='PSPNetKD'), 'pspnet'),
}
"""At least one for each method of the registry."""


@dataclasses.dataclass(frozen=True)
class Curve:
    """What a run logged, step by step.

    Attributes:
        terms: The sum of all distillation terms.
        task: The sum of the student's own losses.
    """

    terms: tuple[float, ...]
    task: tuple[float, ...]

    @property
    def finite(self) -> bool:
        """Whether all of it is."""
        return all(map(math.isfinite, (*self.terms, *self.task)))


@OPTIM_WRAPPERS.register_module(force=True)
class HostAmpOptimWrapper(OptimWrapper):
    """Bfloat16 on the host, where MMEngine's ``AmpOptimWrapper`` refuses to work; it needs no scale."""

    @contextlib.contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Autocast around the forward pass; the proposals are chosen in float32, as a GPU does it."""
        stock = NMSop.forward

        def forward(ctx: Any, boxes: Tensor, scores: Tensor, *others: Any) -> Any:
            return stock(ctx, boxes.float(), scores.float(), *others)

        patched = mock.patch.object(NMSop, 'forward', staticmethod(forward))
        with super().optim_context(model), torch.autocast('cpu', torch.bfloat16), patched:
            yield


def mixed() -> dict[str, Any]:
    """What makes a run one in mixed precision on this machine."""
    if torch.cuda.is_available():
        return dict(type='AmpOptimWrapper', dtype='float16', loss_scale='dynamic')
    return dict(type='HostAmpOptimWrapper')


def config_of(case: Case, work_dir: Path, steps: int) -> Config:
    """The run of a case in float32."""
    if str(TESTS) not in sys.path:
        sys.path.insert(0, str(TESTS))
    # The small models and made-up images of the tests.
    from _helpers import tiny, tiny_seg

    kit: Any = tiny_seg if case.family == 'pspnet' else tiny
    build = getattr(kit, case.family)
    models = [build(width) for width in (16, 24)]
    distill = dict(teacher=models[1], teacher_ckpt='random', methods=dict(method=case.method))
    cfg = kit.run_config(work_dir, steps, model=models[0], distill=distill)
    cfg.optim_wrapper.optimizer.lr = RATE
    return cfg


def curve_of(case: Case, amp: bool, work_dir: Path, steps: int = STEPS) -> Curve:
    """Train a case.

    Args:
        case: What is trained.
        amp: Whether in mixed precision.
        work_dir: Folder of the run.
        steps: How many.

    Returns:
        What was logged.
    """
    cfg = config_of(case, work_dir, steps)
    if amp:
        cfg.optim_wrapper.update(mixed())
    cfg.default_hooks.checkpoint = None
    cfg.experiment_name = uuid.uuid4().hex
    work_dir.mkdir(parents=True, exist_ok=True)
    with quiet(work_dir / 'console.log'):
        runner = new_runner(cfg)
        runner.train()
    scalars = {
        name[len('train/') :]: buffer.data[0]
        for name, buffer in runner.message_hub.log_scalars.items()
        if name.startswith('train/') and 'loss' in name and name != 'train/loss'
    }
    sums = {True: [0.0] * steps, False: [0.0] * steps}
    for name, values in scalars.items():
        side = sums[name.startswith('distill.')]
        for index, value in enumerate(values):
            side[index] += float(value)
    return Curve(tuple(sums[True]), tuple(sums[False]))


def distance(values: Sequence[float], reference: Sequence[float], last: int = LAST) -> float:
    """How far the mean over the last steps lies from that of another run, as a share of the latter."""
    found, wanted = (statistics.mean(item[-last:]) for item in (values, reference))
    return abs(found - wanted) / abs(wanted) if wanted else math.inf


def cells(curves: Mapping[str, tuple[Curve, Curve]]) -> Iterator[tuple[str, ...]]:
    """A row for each case, from its runs in float32 and in mixed precision."""
    for name, (plain, amp) in curves.items():
        means = [f'{statistics.mean(curve.terms[-LAST:]):.4g}' for curve in (plain, amp)]
        shares = [distance(amp.terms, plain.terms), distance(amp.task, plain.task)]
        yield CASES[name].label, CASES[name].family, *means, *(f'{100 * share:.2f} %' for share in shares)


def main() -> None:
    """Train and print."""
    parser = CommandParser(description=__doc__)
    parser.add_argument('--only', nargs='+', default=[], help='cases; all by default')
    parser.add_argument('--steps', type=int, default=STEPS, help=f'{STEPS} by default')
    parser.add_argument('--out', type=Path, help='Markdown file for the table')
    args = parser.parse_args()
    with plain_errors(), tempfile.TemporaryDirectory() as folder:
        for name in args.only:
            if name not in CASES:
                raise DistillError(f'"{name}" is no case: {nearest(name, CASES)}')
        curves = {}
        for name in track(args.only or list(CASES), description='methods'):
            curves[name] = (
                curve_of(CASES[name], False, Path(folder, name, 'float32'), args.steps),
                curve_of(CASES[name], True, Path(folder, name, 'amp'), args.steps),
            )
        found = list(cells(curves))
        title = (
            f'{args.steps} steps in {"float16" if torch.cuda.is_available() else "bfloat16"}, means of the last {LAST}'
        )
        wide_console().print(console_table(title, found, HEADS))
        if args.out:
            args.out.write_text(markdown_table(found, HEADS))
        broken = [name for name, (_, amp) in curves.items() if not amp.finite]
        if broken:
            raise DistillError(f'In mixed precision {", ".join(broken)} gave what is not finite; mend it.')


if __name__ == '__main__':
    main()
