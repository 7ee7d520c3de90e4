"""Focal and global distillation (FGD), Yang et al., CVPR 2022."""

from __future__ import annotations

from torch import Tensor, nn

from mmkd_plugin.functional.fgd import fgd_loss
from mmkd_plugin.losses.global_context import GlobalContext
from mmkd_plugin.registry import MODELS
from mmkd_plugin.utilities.checks import require_positive


@MODELS.register_module()
class FGDLoss(nn.Module):
    """One pyramid level of FGD; see :func:`~mmkd_plugin.functional.fgd.fgd_loss` for the formulas.

    Every level has its own module, since the two context blocks hold parameters; the levels are added. The default
    weights are the paper's for anchor-based one-stage detectors; the sums are not divided by the size of the map, so
    they must be small.

    Args:
        channels: Channels of the teacher feature, to which the student is adapted before.
        temperature: T of the attentions.
        foreground_weight: Alpha.
        background_weight: Beta.
        attention_weight: Gamma.
        relation_weight: Lambda.
        loss_weight: Multiplies all four.
    """

    def __init__(
        self,
        channels: int,
        temperature: float = 0.5,
        foreground_weight: float = 1e-3,
        background_weight: float = 5e-4,
        attention_weight: float = 1e-3,
        relation_weight: float = 5e-6,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        require_positive('The temperature of FGD', temperature)
        self.temperature = temperature
        weights = {
            'foreground': foreground_weight * loss_weight,
            'background': background_weight * loss_weight,
            'attention': attention_weight * loss_weight,
            'relation': relation_weight * loss_weight,
        }
        self.weights = {name: weight for name, weight in weights.items() if weight}
        # Parameters that no loss reaches would stall distributed training.
        related = 'relation' in self.weights
        self.student_context: nn.Module = GlobalContext(channels) if related else nn.Identity()
        self.teacher_context: nn.Module = GlobalContext(channels) if related else nn.Identity()

    def forward(
        self, student: Tensor, teacher: Tensor, boxes: Tensor, valid: Tensor, image_shapes: Tensor
    ) -> dict[str, Tensor]:
        """The weighted terms of this level, without those of weight 0.

        Args:
            student: Adapted student feature, ``(N, C, H, W)``.
            teacher: Teacher feature, ``(N, C, H, W)``; detached.
            boxes: Padded ground truth, ``(N, B, 4)``, ``x1 y1 x2 y2`` in pixels of the network input.
            valid: ``(N, B)`` bool, False where a row of ``boxes`` is padding.
            image_shapes: ``(N, 2)``, height and width of each image before padding, in pixels.

        Returns:
            Scalars under ``'foreground'``, ``'background'``, ``'attention'`` and ``'relation'``.

        Raises:
            ValueError: If the two features differ in shape.
        """
        terms = fgd_loss(
            student,
            teacher,
            boxes,
            valid,
            image_shapes,
            self.student_context,
            self.teacher_context,
            temperature=self.temperature,
            terms=self.weights,
        )
        return {name: weight * getattr(terms, name) for name, weight in self.weights.items()}
