"""Fine-grained feature imitation (FGI), Wang et al., CVPR 2019."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmkd_plugin.functional.fgi import READINGS, box_regions, fgi_loss, imitation_masks, lit_cells
from mmkd_plugin.registry import MODELS
from mmkd_plugin.utilities.checks import require_choice
from mmkd_plugin.utilities.distributed import mean_over_ranks


@MODELS.register_module()
class FGILoss(nn.Module):
    """All pyramid levels of FGI; see :mod:`mmkd_plugin.functional.fgi` for the formulas.

    The adaptation of the student (a 3x3 convolution; a ReLU behind it only where the teacher's map comes from a ReLU
    too) is a connector. In distributed training the lit cells are averaged over the ranks.

    Args:
        imitation_weight: Weight of the only term.
        psi: Share of a box's largest IoU that an anchor must exceed to light its cell, 0 to 1.
        reading: How a pyramid is read: ``'assigned'``, ``'all'`` or ``'global'``.
        region: Which cells are imitated: ``'anchors'`` is the method; ``'boxes'`` (cells that a ground-truth box
            touches) and ``'all'`` (the whole map) are the paper's ablations.
        plus_one_pixel: Use the classic IoU that counts the last pixel, as the released code does.
        base_size: Of :func:`~mmkd_plugin.functional.fgi.box_levels`.
        strides: Stride of each level in pixels; needed by the region ``'boxes'`` alone.
        loss_weight: Multiplies the term.
    """

    def __init__(
        self,
        imitation_weight: float = 0.01,
        psi: float = 0.5,
        reading: str = 'assigned',
        region: str = 'anchors',
        plus_one_pixel: bool = False,
        base_size: float = 56.0,
        strides: Sequence[int] | None = None,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        require_choice('reading', reading, READINGS)
        require_choice('region', region, ('anchors', 'boxes', 'all'))
        if not 0 <= psi <= 1:
            raise ValueError(f'psi is a share of the largest IoU and must lie between 0 and 1, but it is {psi}.')
        if region == 'boxes' and strides is None:
            raise ValueError("The region 'boxes' of FGI needs the stride of each level; give strides.")
        self.weight = imitation_weight * loss_weight
        self.psi = psi
        self.reading = reading
        self.region = region
        self.plus_one_pixel = plus_one_pixel
        self.base_size = base_size
        self.strides = strides

    def forward(
        self,
        student: Sequence[Tensor],
        teacher: Sequence[Tensor],
        boxes: Tensor,
        valid: Tensor,
        priors: Sequence[Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """The weighted term; nothing where its weight is 0.

        Args:
            student: Adapted student feature of each level, ``(N, C, H, W)``.
            teacher: Teacher feature of each level, the same shapes; detached.
            boxes: Padded ground truth, ``(N, B, 4)``, ``x1 y1 x2 y2`` in pixels of the network input.
            valid: ``(N, B)`` bool, False where a row of ``boxes`` is padding.
            priors: The student's anchors of each level, ``(H * W * K, 4)`` or ``(H, W, K, 4)``; read by the region
                ``'anchors'`` alone.

        Returns:
            A scalar under ``'imitation'``.

        Raises:
            ValueError: If features, priors or levels do not fit each other.
        """
        if not self.weight:
            return {}
        masks = self.masks([(level.shape[2], level.shape[3]) for level in student], boxes, valid, priors)
        return {'imitation': self.weight * fgi_loss(student, teacher, masks, mean_over_ranks(lit_cells(masks)))}

    def masks(
        self,
        sizes: Sequence[tuple[int, int]],
        boxes: Tensor,
        valid: Tensor,
        priors: Sequence[Tensor] | None = None,
    ) -> list[Tensor]:
        """The cells that are imitated, ``(N, H, W)`` bool for each level; arguments as in :meth:`forward`."""
        if self.region == 'all':
            return [torch.ones((len(valid), *size), dtype=torch.bool, device=valid.device) for size in sizes]
        if self.region == 'boxes' and self.strides is not None:
            return box_regions(boxes, valid, sizes, self.strides, reading=self.reading, base_size=self.base_size)
        if priors is None:
            raise ValueError("The region 'anchors' of FGI needs the priors of the student's head; record them.")
        return imitation_masks(
            priors,
            boxes,
            valid,
            sizes,
            psi=self.psi,
            reading=self.reading,
            plus_one_pixel=self.plus_one_pixel,
            base_size=self.base_size,
        )
