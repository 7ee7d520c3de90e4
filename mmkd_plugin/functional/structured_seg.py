"""Structured distillation for segmentation, Liu et al., CVPR 2019 and TPAMI 2020: pixels and pairs of pixels.

The third part, the adversarial one, is in :mod:`mmkd_plugin.functional.holistic`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d

from mmkd_plugin.errors import DistillError
from mmkd_plugin.functional.soft_labels import soft_label_divergence
from mmkd_plugin.utilities.checks import require_choice
from mmkd_plugin.utilities.precision import full_precision

PIXEL_REDUCTIONS = ('pixel_mean', 'batch_sum', 'element_mean')
POOLINGS = ('max', 'avg')


def pixel_wise_loss(
    student: Tensor,
    teacher: Tensor,
    *,
    divergence: str = 'cross_entropy',
    reduction: str = 'pixel_mean',
    temperature: float = 1.0,
) -> Tensor:
    r"""Divergence of the two models' class probabilities, pixel by pixel.

    .. math:: L = \frac{1}{Z} \sum_{n,i,j} D_{nij}

    with D of :func:`~mmkd_plugin.functional.soft_labels.soft_label_divergence`. The default reduction depends on
    neither the size of the batch nor that of the crop. The released codes differ: the master branch divides the
    cross-entropy by the positions alone, its successor the KL by positions, images and classes.

    Args:
        student: Logits, ``(N, C, H, W)``; gradients flow to them.
        teacher: Logits, the same shape; detached.
        divergence: ``'cross_entropy'``, not 0 where the two agree, or ``'kl'``; the gradient is the same.
        reduction: What Z counts: ``'pixel_mean'`` N H W, ``'batch_sum'`` H W, ``'element_mean'`` N C H W.
        temperature: T.

    Returns:
        Scalar.

    Raises:
        DistillError: If the logits differ in shape, or an option is unknown.

    Example:
        >>> import torch
        >>> pixel_wise_loss(torch.zeros(1, 2, 3, 3), torch.ones(1, 2, 3, 3))
        tensor(0.6931)
    """
    require_choice('reduction', reduction, PIXEL_REDUCTIONS)
    pixels = soft_label_divergence(student, teacher, divergence=divergence, temperature=temperature)
    images, classes, height, width = student.shape
    positions = height * width
    count = {'pixel_mean': images * positions, 'batch_sum': positions, 'element_mean': images * classes * positions}
    return pixels.sum() / count[reduction]


@full_precision
def pair_wise_loss(
    student: Tensor,
    teacher: Tensor,
    *,
    scale: float = 0.5,
    patch: tuple[int, int] | None = None,
    pooling: str = 'max',
    detach_norm: bool = True,
    max_gib: float = 1.0,
) -> Tensor:
    r"""Squared difference of the two models' similarities between all pairs of nodes.

    .. math:: L = \frac{1}{N M^2} \sum_{n,i,j} (A^t_{nij} - A^s_{nij})^2, \quad
        A_{ij} = \hat f_i \cdot \hat f_j, \quad \hat f = \frac{f}{\|f\|_2 + 10^{-8}}

    The nodes are the cells of the pooled feature, M in number. By default they follow the released code: the pooled
    area is a share of the map, so that scale 0.5 leaves 2 x 2 nodes (3 x 3 on an odd map), the maximum is taken, and no
    gradient flows through the norm. The paper pools the average of patches of 2 x 2 cells: ``patch=(2, 2)``,
    ``pooling='avg'``.

    Args:
        student: Feature, ``(N, C_s, H, W)``; gradients flow to it.
        teacher: Feature, ``(N, C_t, H, W)``; detached. The channels need not agree.
        scale: Height and width of the pooled area as a share of the map, rounded down.
        patch: Height and width of the pooled area in cells, in place of ``scale``; (1, 1) does not pool.
        pooling: ``'max'`` or ``'avg'``.
        detach_norm: Whether the norm is a constant for the gradient.
        max_gib: Size in GiB that the similarities of one model may take.

    Returns:
        Scalar.

    Raises:
        DistillError: If the maps differ in size, the pooled area is empty or leaves a single node, or the similarities
            are larger than ``max_gib``.

    Example:
        >>> import torch
        >>> student, teacher = torch.tensor([[[[1., 2.]]]]), torch.tensor([[[[1., -2.]]]])
        >>> pair_wise_loss(student, teacher, patch=(1, 1))
        tensor(2.)
    """
    require_choice('pooling', pooling, POOLINGS)
    height, width = teacher.shape[2:]
    if student.shape[2:] != teacher.shape[2:]:
        raise DistillError(
            f'The pair-wise loss needs maps of one size, but the student gives {student.shape[2]} x {student.shape[3]} '
            f'cells and the teacher {height} x {width}; record features of one stride or add a connector that resizes.'
        )
    area = patch or (int(height * scale), int(width * scale))
    if min(area) < 1:
        raise DistillError(
            f'The pair-wise loss pools {area[0]} x {area[1]} cells of a map of {height} x {width}; choose a larger '
            'scale or give the patch in cells.'
        )
    grid = (-(-height // area[0]), -(-width // area[1]))
    nodes = grid[0] * grid[1]
    if nodes < 2:
        raise DistillError(
            f'The pair-wise loss compares nodes, but pooling {area[0]} x {area[1]} cells of a map of {height} x '
            f'{width} leaves one; choose a smaller scale or patch, or a larger crop.'
        )
    needed = teacher.shape[0] * nodes**2 * teacher.element_size() / 2**30
    if needed > max_gib:
        raise DistillError(
            f'The pair-wise loss over {grid[0]} x {grid[1]} nodes and {teacher.shape[0]} images needs {needed:.1f} GiB '
            f'for each model, more than max_gib = {max_gib:g}; pool more with scale or patch, or raise max_gib.'
        )
    pool = max_pool2d if pooling == 'max' else avg_pool2d
    of_student, of_teacher = (pool(feature, area, area, ceil_mode=True) for feature in (student, teacher.detach()))
    distance = _SimilarityDistance.apply(_directions(of_student, detach_norm), _directions(of_teacher, detach_norm))
    return distance / (nodes**2 * teacher.shape[0])


@full_precision
def node_similarity(feature: Tensor, *, detach_norm: bool = True) -> Tensor:
    r"""Cosine similarity of all pairs of cells.

    .. math:: A_{ij} = \hat f_i \cdot \hat f_j, \quad \hat f = \frac{f}{\|f\|_2 + 10^{-8}}

    Args:
        feature: ``(N, C, H, W)``.
        detach_norm: Whether the norm is a constant for the gradient.

    Returns:
        ``(N, H * W, H * W)``; 0 for a cell that is 0 in all channels, which gets no gradient.

    Example:
        >>> import torch
        >>> node_similarity(torch.tensor([[[[1., 3.]], [[0., 4.]]]]))
        tensor([[[1.0000, 0.6000],
                 [0.6000, 1.0000]]])
    """
    unit = _directions(feature, detach_norm)
    return unit.transpose(1, 2) @ unit


def _directions(feature: Tensor, detach_norm: bool) -> Tensor:
    """The cells of ``(N, C, H, W)`` divided by their length: ``(N, C, H * W)``."""
    feature = feature.flatten(2)
    length = torch.linalg.vector_norm(feature, dim=1, keepdim=True)
    # A cell without length has no direction to learn, and the gradient of one would be divided by 1e-8.
    feature = torch.where(length > 0, feature, 0)
    norm = length + 1e-8
    return feature / (norm.detach() if detach_norm else norm)


class _SimilarityDistance(torch.autograd.Function):
    """Sum of the squared differences of two models' products of all pairs of columns, ``(N, C, M)``.

    Of the M x M products one matrix exists at a time and none is kept. The gradient, :math:`-4 u (A^t - A^s)`, is
    computed with the sum, since it is as small as the columns.
    """

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor) -> Tensor:
        """See the class."""
        difference = torch.bmm(teacher.transpose(1, 2), teacher)
        difference.baddbmm_(student.transpose(1, 2), student, alpha=-1)
        gradient = torch.bmm(student, difference).mul_(-4) if ctx.needs_input_grad[0] else None
        ctx.save_for_backward(student, teacher, gradient)
        return difference.square_().sum()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """The student's gradient; that of the gradient itself goes through the products again."""
        student, teacher, of_student = ctx.saved_tensors
        if torch.is_grad_enabled():
            difference = teacher.transpose(1, 2) @ teacher - student.transpose(1, 2) @ student
            of_student = -4 * (student @ difference)
        return gradient * of_student, None
