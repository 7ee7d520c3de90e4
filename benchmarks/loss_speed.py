"""Time the loss of FGD against a plain version of it and a bare L2 of the same maps, in turns and by one process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from torch import Tensor, nn

from mmkd_plugin.cli import CommandParser, plain_errors, wide_console
from mmkd_plugin.errors import DistillError
from mmkd_plugin.methods import FGDLoss
from mmkd_plugin.study.table import console_table, markdown_table

STRIDES = (8, 16, 32, 64, 128)
HEADS = ('loss, forward and backward', 'multiple of the bare L2', 'range over the rounds')


def plain_masks(boxes: Tensor, height: int, width: int, image: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Foreground and background of one image as one writes them first: a loop over its boxes."""
    foreground = boxes.new_zeros(height, width)
    for box in boxes:
        x1, x2 = int(torch.floor(box[0] / image[1] * width)), int(torch.ceil(box[2] / image[1] * width))
        y1, y2 = int(torch.floor(box[1] / image[0] * height)), int(torch.ceil(box[3] / image[0] * height))
        weight = boxes.new_tensor(1 / (y2 + 1 - y1) / (x2 + 1 - x1))
        cells = foreground[y1 : y2 + 1, x1 : x2 + 1]
        foreground[y1 : y2 + 1, x1 : x2 + 1] = torch.maximum(cells, weight)
    background = (foreground == 0).to(boxes.dtype)
    return foreground, background / background.sum().clamp(min=1)


def plain_context(feature: Tensor, block: Any) -> Tensor:
    """A context block as one writes it first."""
    weight = block.conv_mask(feature).flatten(2).softmax(2)
    pooled = torch.matmul(feature.flatten(2), weight.transpose(1, 2))
    return feature + block.channel_add_conv(pooled[..., None])


def plain_fgd(student: Tensor, teacher: Tensor, boxes: Tensor, image: tuple[int, int], module: FGDLoss) -> Tensor:
    """The weighted sum of FGD's terms on one level, a step for every line of the paper."""
    count, channels, height, width = student.shape
    masks = [plain_masks(of_image, height, width, image) for of_image in boxes]
    foreground, background = (torch.stack(side)[:, None] for side in zip(*masks))

    def attention(feature: Tensor) -> tuple[Tensor, Tensor]:
        cells = feature.abs().mean(1, keepdim=True).flatten(2) / module.temperature
        values = feature.abs().mean((2, 3)) / module.temperature
        spatial = height * width * cells.softmax(2).view(count, 1, height, width)
        return spatial, channels * values.softmax(1)[..., None, None]

    (student_spatial, student_channel), (teacher_spatial, teacher_channel) = attention(student), attention(teacher)

    def masked(mask: Tensor) -> Tensor:
        weight = torch.sqrt(mask) * torch.sqrt(teacher_spatial) * torch.sqrt(teacher_channel)
        return nn.functional.mse_loss(student * weight, teacher * weight, reduction='sum') / count

    terms = {
        'foreground': masked(foreground),
        'background': masked(background),
        'attention': ((student_spatial - teacher_spatial).abs().sum() + (student_channel - teacher_channel).abs().sum())
        / count,
        'relation': nn.functional.mse_loss(
            plain_context(student, module.student_context),
            plain_context(teacher, module.teacher_context),
            reduction='sum',
        )
        / count,
    }
    return torch.stack([weight * terms[name] for name, weight in module.weights.items()]).sum()


def total(terms: Iterable[Tensor]) -> Tensor:
    """Sum of scalars."""
    return torch.stack(list(terms)).sum()


class Maps:
    """The features of a pyramid, made up, with boxes and FGD's modules.

    Args:
        images: How many.
        size: Height and width of the images.
        channels: Of every level.
        boxes: On each image.
        device: Where all of it lies.
    """

    def __init__(self, images: int, size: tuple[int, int], channels: int, boxes: int, device: str) -> None:
        torch.manual_seed(0)
        self.size = size
        shapes = [(images, channels, -(-size[0] // stride), -(-size[1] // stride)) for stride in STRIDES]
        self.students = [torch.randn(shape, device=device, requires_grad=True) for shape in shapes]
        self.teachers = [torch.randn(shape, device=device) for shape in shapes]
        corner = torch.rand(images, boxes, 2, device=device) * 0.6
        extent = torch.rand(images, boxes, 2, device=device) * 0.4
        self.boxes = torch.cat([corner, corner + extent], -1) * torch.tensor([size[1], size[0]] * 2, device=device)
        self.valid = torch.ones(images, boxes, dtype=torch.bool, device=device)
        self.shapes = torch.tensor([size] * images, device=device)
        self.modules = [FGDLoss(channels).to(device) for _ in STRIDES]
        self.leaves = self.students + [item for module in self.modules for item in module.parameters()]

    def bare(self) -> tuple[Tensor, ...]:
        """Gradients of the squared difference."""
        pairs = zip(self.students, self.teachers)
        loss = total(nn.functional.mse_loss(student, teacher, reduction='sum') for student, teacher in pairs)
        return torch.autograd.grad(loss, self.students)

    def plain(self) -> tuple[Tensor, ...]:
        """Gradients of FGD, written plainly."""
        levels = zip(self.students, self.teachers, self.modules)
        loss = total(plain_fgd(student, teacher, self.boxes, self.size, module) for student, teacher, module in levels)
        return torch.autograd.grad(loss, self.leaves)

    def ours(self) -> tuple[Tensor, ...]:
        """Gradients of FGD."""
        levels = zip(self.students, self.teachers, self.modules)
        loss = total(
            total(module.terms(student, teacher, self.boxes, self.valid, self.shapes).values())
            for student, teacher, module in levels
        )
        return torch.autograd.grad(loss, self.leaves)


def require_equal(maps: Maps) -> None:
    """Refuse to time two losses that are not the same."""
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
        maps = Maps(args.images, tuple(args.size), args.channels, args.boxes, device)
        require_equal(maps)
        sides = {'bare L2': maps.bare, 'FGD, plain': maps.plain, 'FGD, ours': maps.ours}
        found = cells(seconds(sides, args.rounds), 'bare L2')
        wide_console().print(console_table(f'{device}, {torch.get_num_threads()} threads', found, HEADS))
        if args.out:
            args.out.write_text(markdown_table(found, HEADS))


if __name__ == '__main__':
    main()
