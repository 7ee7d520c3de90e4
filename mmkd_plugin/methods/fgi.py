"""Fine-grained feature imitation (FGI), Wang et al., CVPR 2019."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Sequence, Union

import torch
from mmengine.logging import print_log
from torch import Tensor
from typing_extensions import Annotated, Literal

from mmkd_plugin.errors import DistillError
from mmkd_plugin.functional.fgi import box_regions, fgi_loss, imitation_masks, lit_cells
from mmkd_plugin.methods.base import Method
from mmkd_plugin.methods.loss import DistillLoss
from mmkd_plugin.methods.parts import Parts, level_name
from mmkd_plugin.probe.models import LevelPair, ModelPair
from mmkd_plugin.registry import METHODS, MODELS
from mmkd_plugin.utilities.distributed import mean_over_ranks
from mmkd_plugin.utilities.settings import Factor, Positive, Within


@MODELS.register_module()
class FGILoss(DistillLoss):
    """All pyramid levels of FGI; see :mod:`mmkd_plugin.functional.fgi` for the formulas.

    The adaptation of the student (a 3x3 convolution; a ReLU behind it only where the teacher's map comes from a ReLU
    too) is a connector. In distributed training the lit cells are averaged over the ranks.

    Args:
        psi: Share of a box's largest IoU that an anchor must exceed to light its cell.
        reading: How a pyramid is read: ``'assigned'`` lights only the level that a box belongs to by its size,
            ``'all'`` every level against its own maximum, ``'global'`` every level against one maximum.
        region: ``'anchors'`` is the method; ``'boxes'`` (cells that a ground-truth box touches) and ``'all'`` (the
            whole map) are the paper's ablations and need no anchors.
        plus_one_pixel: Whether the IoU counts the last pixel, as the released code does.
        base_size: Boxes below twice this side in pixels belong to the finest level, and each further level doubles it.
            56 suits anchors that start at 32 pixels, as those of the stock RPN and RetinaNet do.
        strides: Stride of each level in pixels; needed by the region ``'boxes'`` alone.
        loss_weight: Lambda of the paper; 0 switches the method off.
    """

    def __init__(
        self,
        psi: Annotated[float, Within(0, 1)] = 0.5,
        reading: Literal['assigned', 'all', 'global'] = 'assigned',
        region: Literal['anchors', 'boxes', 'all'] = 'anchors',
        plus_one_pixel: bool = False,
        base_size: Positive = 56.0,
        strides: Optional[Sequence[int]] = None,
        loss_weight: Factor = 0.01,
    ) -> None:
        super().__init__()
        if region == 'boxes' and strides is None:
            raise DistillError("The region 'boxes' of FGI needs the stride of each level; give strides.")
        self.weight = loss_weight
        self.psi = psi
        self.reading = reading
        self.region = region
        self.plus_one_pixel = plus_one_pixel
        self.base_size = base_size
        self.strides = strides

    def terms(
        self,
        student: Sequence[Tensor],
        teacher: Sequence[Tensor],
        boxes: Tensor,
        valid: Tensor,
        priors: Optional[Sequence[Tensor]] = None,
    ) -> Dict[str, Tensor]:
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
        priors: Optional[Sequence[Tensor]] = None,
    ) -> List[Tensor]:
        """The cells that are imitated, ``(N, H, W)`` bool for each level; arguments as in :meth:`terms`."""
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


@METHODS.register_module()
class FGI(Method):
    """Fine-grained feature imitation near objects, Wang et al., CVPR 2019.

    Attributes:
        relu: Whether a ReLU follows the adaptation, a 3x3 convolution; ``'auto'`` where the teacher's map comes from
            one.
        adapt_std: Standard deviation of the adaptation's first weights, 1e-4 in the released code; None for torch's
            default.
        tap: ``'output'`` takes what the neck returns, ``'pre_norm'`` each level's last convolution.
    """

    task, general = 'detection', True
    losses = {'': FGILoss}
    given = ('strides',)
    renamed = {'imitation_weight': 'loss_weight'}

    relu: Union[bool, Literal['auto']] = 'auto'
    adapt_std: Optional[Positive] = None
    tap: Literal['output', 'pre_norm'] = 'output'

    def expand(self, name: str, models: ModelPair) -> Parts:
        """One loss over all levels, since a box is assigned to one of them."""
        parts = Parts()
        levels = models.levels(self.tap)
        extra: Dict[str, Any] = {}
        finest = models.student.output[0].stride
        if self.region == 'anchors':
            levels = self._with_anchors(name, levels, models)
            finest = min(models.student.anchor_strides)
            extra['priors'] = [parts.record_priors(level, models) for level in levels]
        loss = f'loss_{name}'
        students, teachers = [], []
        start: Dict[str, Any] = {}
        if self.adapt_std is not None:
            start['init_cfg'] = dict(type='Normal', layer='Conv2d', std=self.adapt_std)
        for index, level in enumerate(levels):
            relu = level.teacher.nonnegative if self.relu == 'auto' else self.relu
            student, teacher = parts.record_level(
                level_name(loss, index), level, 'always', kernel_size=3, relu=relu, **start
            )
            students.append(student)
            teachers.append(teacher)
        strides = [level.student.stride for level in levels]
        # Where the finest levels are left out, the boxes of the next one are that much larger.
        config = self.loss_config(strides=strides, base_size=self.base_size * strides[0] / finest)
        facts = parts.record_facts('boxes', 'valid')
        parts.add_loss(loss, config, student=students, teacher=teachers, **facts, **extra)
        return parts

    def _with_anchors(self, name: str, levels: List[LevelPair], models: ModelPair) -> List[LevelPair]:
        """The levels on which the student's head places anchors."""
        strides = models.student.anchor_strides
        if not strides:
            raise DistillError(
                f'FGI compares anchors with the ground truth, but the head of the student, {models.student.name}, has '
                f"no fixed anchors (points or queries, say); set distill.methods.{name}.region='boxes'."
            )
        kept = [level for level in levels if models.student.anchor_level(level.student.stride) is not None]
        if not kept:
            raise DistillError(
                f'The student, {models.student.name}, places anchors at the strides {list(strides)}, but levels of '
                f'student and teacher agree at {[level.student.stride for level in levels]} alone; set '
                f"distill.methods.{name}.region='boxes'."
            )
        left = [level.student.stride for level in levels if level not in kept]
        if left:
            print_log(f'Student levels of stride {left} carry no anchors and are not distilled by FGI.', 'current')
        return kept
