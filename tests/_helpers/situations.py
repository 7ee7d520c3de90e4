"""Batches as a run may meet them: sizes, boxes, classes, precisions and ranks, and what a loss does with them."""

from __future__ import annotations

import dataclasses
import functools
import statistics
from collections.abc import Iterator
from typing import Any, Callable, Dict
from unittest import mock

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

STRIDES = (8, 16, 32, 64, 128)
KINDS = ('none', 'one', 'few', 'many', 'tiny', 'flat', 'outside', 'crowd')
"""What an image may hold; 'few' is an ordinary one."""
VALUES = ('normal', 'dead', 'zero', 'equal')
"""What the student's maps may hold, beside the teacher's normal ones."""


@dataclasses.dataclass(frozen=True)
class Situation:
    """What the batches of a step are like.

    Attributes:
        kinds: What the images hold, one after the other over all ranks; the kinds are repeated, but for 'many', which
            one image holds and is a 'crowd' in others.
        size: Height and width in pixels.
        images: Images of a rank.
        ranks: How many there are.
        classes: How many there are.
        dtype: Of the maps.
        values: What the student's maps hold.
        seed: Of everything else.
    """

    kinds: tuple[str, ...] = ('few',)
    size: tuple[int, int] = (128, 128)
    images: int = 2
    ranks: int = 1
    classes: int = 4
    dtype: str = 'float32'
    values: str = 'normal'
    seed: int = 0


class Batch:
    """The batch of one rank.

    Args:
        situation: What it is like.
        rank: Whose it is.
    """

    def __init__(self, situation: Situation, rank: int) -> None:
        self.situation = situation
        self.rank = rank
        self.random = torch.Generator().manual_seed(1000 * situation.seed + rank)
        kinds = [situation.kinds[index % len(situation.kinds)] for index in range(situation.ranks * situation.images)]
        kinds = ['crowd' if 'many' in kinds[:index] and kind == 'many' else kind for index, kind in enumerate(kinds)]
        self.kinds = kinds[rank * situation.images :][: situation.images]
        self.boxes = [_boxes(kind, situation.size, self.random) for kind in self.kinds]
        self.labels = [torch.randint(situation.classes, (len(item),), generator=self.random) for item in self.boxes]
        self.leaves: list[Tensor] = []

    def facts(self) -> dict[str, Tensor]:
        """Padded boxes, and which of them are none."""
        counts = torch.tensor([len(item) for item in self.boxes])
        valid = torch.arange(int(counts.max()))[None] < counts[:, None]
        return dict(boxes=pad_sequence(self.boxes, batch_first=True), valid=valid)

    def shapes(self) -> Tensor:
        """Height and width of each image."""
        return torch.tensor([self.situation.size] * self.situation.images)

    def cells(self, stride: int) -> tuple[int, int]:
        """Height and width of a map."""
        height, width = self.situation.size
        return -(-height // stride), -(-width // stride)

    def normal(self, *shape: int) -> Tensor:
        """Random numbers in single precision."""
        return torch.randn(*shape, generator=self.random)

    def pair(self, *shape: int, offset: float = 0.0) -> tuple[Tensor, Tensor]:
        """The student's map, at which gradients are collected, and the teacher's, ``(N, C, ...)``."""
        student, teacher = self.normal(*shape), self.normal(*shape)
        values = self.situation.values
        if values == 'equal':
            student = teacher.clone()
        if values == 'zero':
            student = torch.zeros_like(student)
        if values == 'dead':
            student[:, ::2] = 0
            student.flatten(2)[:, :, 0] = 0
        dtype = getattr(torch, self.situation.dtype)
        leaf = (student + offset).to(dtype).requires_grad_()
        self.leaves.append(leaf)
        return leaf, (teacher + offset).to(dtype)

    def levels(self, channels: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The features of a pyramid, from stride 8 to 128."""
        for stride in STRIDES:
            yield self.pair(self.situation.images, channels, *self.cells(stride))

    def ready(self, loss: Any) -> Any:
        """A loss with random parameters, in double precision where the maps are."""
        with torch.no_grad():
            for item in [*loss.parameters(), *loss.buffers()]:
                if item.is_floating_point():
                    item.copy_(0.3 * torch.randn(item.shape, generator=self.random))
        return loss.double() if self.situation.dtype == 'float64' else loss


Case = Callable[[Batch], Dict[str, Tensor]]
"""Gives the terms of a batch, by names of its choice."""


def measure(case: Case, situation: Situation) -> tuple[dict[str, Tensor], float]:
    """The terms of all ranks, and the length of the gradient that reaches the student's maps.

    Args:
        case: Run for each rank.
        situation: What the batches are like.

    Returns:
        The terms, by rank and name; the gradient of the mean over ranks, as distributed training takes it.
    """
    terms, leaves = {}, []
    for rank, (batch, found) in enumerate(_on_ranks(case, situation)):
        terms.update({f'{name} of rank {rank}': term for name, term in found.items()})
        leaves += batch.leaves
    total = torch.stack([term.double() for term in terms.values()]).sum() / situation.ranks
    gradients = torch.autograd.grad(total, leaves, allow_unused=True) if total.requires_grad else []
    squares = [gradient.double().pow(2).sum() for gradient in gradients if gradient is not None]
    return terms, float(torch.stack(squares).sum().sqrt()) if squares else 0.0


@functools.lru_cache(maxsize=None)
def ordinary_gradient(case: Case, situation: Situation, batches: int = 3) -> float:
    """The median length of the gradient over ordinary batches of the same size."""
    ordinary = dataclasses.replace(situation, kinds=('few',), values='normal')
    return statistics.median(
        measure(case, dataclasses.replace(ordinary, seed=10**6 + seed))[1] for seed in range(batches)
    )


def _on_ranks(case: Case, situation: Situation) -> list[tuple[Batch, dict[str, Tensor]]]:
    """Run a case for each rank; means are exchanged by running it twice, first to collect them."""
    sent: list[list[Tensor]] = []

    def run(rank: int, exchange: Callable[[Tensor, int], None]) -> tuple[Batch, dict[str, Tensor]]:
        calls: list[Tensor] = []

        def all_reduce(value: Tensor, op: str) -> None:
            assert op == 'mean'
            exchange(value, len(calls))
            calls.append(value)

        torch.manual_seed(situation.seed)
        batch = Batch(situation, rank)
        with mock.patch('mmkd_plugin.utilities.distributed.all_reduce', all_reduce):
            return batch, case(batch)

    if situation.ranks > 1:
        for rank in range(situation.ranks):
            sent.append([])
            run(rank, lambda value, index: sent[-1].append(value.clone()))

    def receive(value: Tensor, index: int) -> None:
        if sent:
            value.copy_(torch.stack([values[index] for values in sent]).mean(0))

    return [run(rank, receive) for rank in range(situation.ranks)]


def _boxes(kind: str, size: tuple[int, int], random: torch.Generator) -> Tensor:
    """Boxes of an image, ``x1 y1 x2 y2``."""
    height, width = size
    count = dict(none=0, one=1, many=2000, crowd=200, flat=3, outside=3, tiny=3).get(kind, 0)
    if kind == 'few':
        count = int(torch.randint(3, 11, (), generator=random))
    extent = torch.tensor([width, height], dtype=torch.float32)
    center = torch.rand(count, 2, generator=random) * extent
    # From an eighth to three quarters of the image, as many small as large.
    side = extent * torch.exp2(-3 + 2.6 * torch.rand(count, 2, generator=random))
    if kind == 'crowd':
        center, side = center[:1] + torch.randn(count, 2, generator=random), side[:1].expand(count, 2)
    if kind == 'tiny':
        side = torch.ones(count, 2)
    boxes = torch.cat([center - side / 2, center + side / 2], 1)
    if kind == 'outside':
        return boxes + 2 * extent.repeat(2) * torch.tensor([[1.0], [-1.0], [0.4]])
    boxes = torch.minimum(boxes.clamp(min=0), extent.repeat(2))
    if kind == 'flat':
        # Without width, without height, without either.
        boxes[0, 2], boxes[1, 3], boxes[2, 2:] = boxes[0, 0], boxes[1, 1], boxes[2, :2]
    return boxes
