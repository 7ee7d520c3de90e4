"""Time a loss against a plain version of it and a bare L2 of the same maps, in turns and by one process."""

from __future__ import annotations

import statistics
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from rich.progress import track
from torch import Tensor, nn

from benchmarks.plain_losses import plain_chen, plain_fgd, plain_fgi, plain_imitation, plain_pair
from mmkd_plugin.cli import CommandParser, plain_errors, wide_console
from mmkd_plugin.errors import DistillError
from mmkd_plugin.methods import ChenClassificationLoss, FGDLoss, FGILoss, HolisticLoss, PairWiseLoss
from mmkd_plugin.models.discriminator import WIDTHS, widths_for
from mmkd_plugin.recorders.samples import anchors_first
from mmkd_plugin.study.table import console_table, markdown_table

STRIDES = (8, 16, 32, 64, 128)
HEADS = ('loss, forward and backward', 'multiple of the bare L2', 'range over the rounds')


def total(terms: Iterable[Tensor]) -> Tensor:
    """Sum of scalars."""
    return torch.stack(list(terms)).sum()


class Maps:
    """The features of a pyramid, made up.

    Args:
        images: How many.
        size: Height and width of the images.
        channels: Of every level.
        boxes: On each image.
        device: Where all of it lies.
        strides: Of the levels.
    """

    equal = True
    """Whether the plain side has the same gradients."""

    def __init__(
        self,
        images: int,
        size: tuple[int, int],
        channels: int,
        boxes: int,
        device: str,
        strides: Sequence[int] = STRIDES,
    ) -> None:
        torch.manual_seed(0)
        self.size = size
        shapes = [(images, channels, -(-size[0] // stride), -(-size[1] // stride)) for stride in strides]
        self.sizes = [(shape[2], shape[3]) for shape in shapes]
        self.students = [torch.randn(shape, device=device, requires_grad=True) for shape in shapes]
        self.teachers = [torch.randn(shape, device=device) for shape in shapes]
        corner = torch.rand(images, boxes, 2, device=device) * 0.6
        extent = torch.rand(images, boxes, 2, device=device) * 0.4
        self.boxes = torch.cat([corner, corner + extent], -1) * torch.tensor([size[1], size[0]] * 2, device=device)
        self.valid = torch.ones(images, boxes, dtype=torch.bool, device=device)
        self.shapes = torch.tensor([size] * images, device=device)
        self.leaves = list(self.students)

    def bare(self) -> tuple[Tensor, ...]:
        """Gradients of the squared difference."""
        pairs = zip(self.students, self.teachers)
        loss = total(nn.functional.mse_loss(student, teacher, reduction='sum') for student, teacher in pairs)
        return torch.autograd.grad(loss, self.students)

    def plain(self) -> tuple[Tensor, ...]:
        """Gradients of the loss, written plainly."""
        return torch.autograd.grad(self.plain_loss(), self.leaves)

    def ours(self) -> tuple[Tensor, ...]:
        """Gradients of the loss."""
        return torch.autograd.grad(self.our_loss(), self.leaves)

    @abstractmethod
    def plain_loss(self) -> Tensor:
        """The loss, written plainly."""

    @abstractmethod
    def our_loss(self) -> Tensor:
        """The loss."""


class FGDMaps(Maps):
    """FGD on every level of the neck, with context blocks of its own on each."""

    def __init__(self, images: int, size: tuple[int, int], channels: int, boxes: int, device: str) -> None:
        super().__init__(images, size, channels, boxes, device)
        self.modules = [FGDLoss(channels).to(device) for _ in STRIDES]
        self.leaves += [item for module in self.modules for item in module.parameters()]

    def plain_loss(self) -> Tensor:
        """FGD with loops over boxes."""
        levels = zip(self.students, self.teachers, self.modules)
        return total(plain_fgd(student, teacher, self.boxes, self.size, module) for student, teacher, module in levels)

    def our_loss(self) -> Tensor:
        """FGD."""
        levels = zip(self.students, self.teachers, self.modules)
        return total(
            total(module.terms(student, teacher, self.boxes, self.valid, self.shapes).values())
            for student, teacher, module in levels
        )


class FGIMaps(Maps):
    """FGI on every level of the neck, with nine anchors in each cell, masks included."""

    def __init__(self, images: int, size: tuple[int, int], channels: int, boxes: int, device: str) -> None:
        super().__init__(images, size, channels, boxes, device)
        self.module = FGILoss(loss_weight=1.0)
        ways = [(side * ratio, side / ratio) for side in (4.0, 5.04, 6.35) for ratio in (0.707, 1.0, 1.414)]
        self.anchors = []
        for (height, width), stride in zip(self.sizes, STRIDES):
            rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing='ij')
            centre = torch.stack([columns, rows], -1).float()[:, :, None] * stride
            half = torch.tensor(ways) * stride / 2
            self.anchors.append(torch.cat([centre - half, centre + half], -1).reshape(-1, 4).to(device))

    def plain_loss(self) -> Tensor:
        """FGI with a loop over boxes."""
        module = self.module
        masks = plain_imitation(self.anchors, self.boxes, self.sizes, module.psi, module.base_size)
        return plain_fgi(self.students, self.teachers, masks)

    def our_loss(self) -> Tensor:
        """FGI."""
        return total(self.module.terms(self.students, self.teachers, self.boxes, self.valid, self.anchors).values())


class PairMaps(Maps):
    """PairWise on one map of stride 8, pooled by 2 x 2 cells."""

    def __init__(self, images: int, size: tuple[int, int], channels: int, boxes: int, device: str) -> None:
        super().__init__(images, size, channels, boxes, device, strides=STRIDES[:1])
        self.module = PairWiseLoss(patch=2, pooling='avg', loss_weight=1.0)

    def plain_loss(self) -> Tensor:
        """PairWise with both matrices."""
        return plain_pair(self.students[0], self.teachers[0])

    def our_loss(self) -> Tensor:
        """PairWise."""
        return total(self.module.terms(self.students[0], self.teachers[0]).values())


class ChenMaps(Maps):
    """Chen's classes of a one-stage detector: as many logits in a cell as there are channels, 80 for each anchor."""

    def rows(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The logits of both models in each level's anchors, in one row where the channels are no multiple of 80."""
        for pair in zip(self.students, self.teachers):
            channels = pair[0].shape[1]
            student, teacher = (anchors_first(item, channels if channels % 80 else 80) for item in pair)
            yield student, teacher

    def plain_loss(self) -> Tensor:
        """The cross-entropy step by step."""
        return total(plain_chen(student, teacher, background_weight=1.5) for student, teacher in self.rows())

    def our_loss(self) -> Tensor:
        """The cross-entropy."""
        module = ChenClassificationLoss(hard_share=0.0, sigmoid=True)
        terms = [module.terms(student, teacher, avg_factor=1.0) for student, teacher in self.rows()]
        return total(value for each in terms for value in each.values())


class HolisticMaps(Maps):
    """Both sides of the discriminator's game on a class map of stride 8; plain are the authors' stages for any map."""

    equal = False

    def __init__(self, images: int, size: tuple[int, int], channels: int, boxes: int, device: str) -> None:
        super().__init__(images, size, channels, boxes, device, strides=STRIDES[:1])
        self.image = torch.randn(images, 3, *size, device=device)
        authors, ours = (
            HolisticLoss(channels, widths=widths).to(device) for widths in (WIDTHS, widths_for(min(self.sizes[0])))
        )
        self.games = dict(plain=authors, ours=ours)

    def _loss(self, side: str) -> Tensor:
        game = self.games[side]
        self.leaves = [*self.students, *game.parameters()]
        return game(self.students[0], self.teachers[0], self.image)

    def plain_loss(self) -> Tensor:
        """The authors' discriminator, to whose size the map is enlarged."""
        return self._loss('plain')

    def our_loss(self) -> Tensor:
        """The discriminator that a map of this size gets."""
        return self._loss('ours')


LOSSES: dict[str, Callable[..., Maps]] = dict(
    fgd=FGDMaps, fgi=FGIMaps, pair=PairMaps, chen=ChenMaps, holistic=HolisticMaps
)
"""What is timed, by the name that ``--loss`` takes."""


def require_equal(maps: Maps) -> None:
    """Refuse to time two losses that are not the same."""
    if not maps.equal:
        return
    for ours, plain in zip(maps.ours(), maps.plain()):
        if not torch.allclose(ours, plain, rtol=1e-3, atol=1e-4 * float(plain.abs().max())):
            raise DistillError('The two losses have different gradients, so their times say nothing; mend one of them.')


def seconds(sides: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Time each side once a round, after a first call that does not count.

    Args:
        sides: What to run, by name.
        rounds: How often.

    Returns:
        Seconds by name.
    """
    wait = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number in track(range(rounds + 1), description='rounds'):
        for name, side in sides.items():
            wait()
            started = time.perf_counter()
            side()
            wait()
            if number:
                times[name].append(time.perf_counter() - started)
    return times


def cells(times: dict[str, list[float]], unit: str) -> list[tuple[str, ...]]:
    """A row for each side, in multiples of one of them round by round."""
    rows: list[tuple[str, ...]] = []
    for name, values in times.items():
        ratios = [value / one for value, one in zip(values, times[unit])]
        rows.append((name, f'{statistics.median(ratios):.2f} x', f'{min(ratios):.2f} to {max(ratios):.2f}'))
    return rows


def main() -> None:
    """Measure and print."""
    parser = CommandParser(description=__doc__)
    parser.add_argument('--loss', choices=sorted(LOSSES), default='fgd', help='fgd by default')
    parser.add_argument('--images', type=int, default=2, help='2 by default')
    parser.add_argument(
        '--size', type=int, nargs=2, default=[800, 1344], metavar=('H', 'W'), help='800 1344 by default'
    )
    parser.add_argument('--channels', type=int, default=256, help='256 by default')
    parser.add_argument('--boxes', type=int, default=30, help='on each image; 30 by default')
    parser.add_argument('--rounds', type=int, default=9, help='9 by default')
    parser.add_argument('--out', type=Path, help='Markdown file for the table')
    args = parser.parse_args()
    with plain_errors():
        device = 'cuda' if torch.cuda.is_available() else 'cpu'
        maps = LOSSES[args.loss](args.images, tuple(args.size), args.channels, args.boxes, device)
        require_equal(maps)
        sides = {'bare L2': maps.bare, f'{args.loss}, plain': maps.plain, f'{args.loss}, ours': maps.ours}
        found = cells(seconds(sides, args.rounds), 'bare L2')
        wide_console().print(console_table(f'{device}, {torch.get_num_threads()} threads', found, HEADS))
        if args.out:
            args.out.write_text(markdown_table(found, HEADS))


if __name__ == '__main__':
    main()
