"""FGD in the ``distill`` block."""

from __future__ import annotations

import dataclasses
from typing import Literal

from mmkd_plugin.methods.base import Method, Parts
from mmkd_plugin.probe.models import ModelPair


@dataclasses.dataclass
class FGD(Method):
    """Focal and global distillation on the levels of the neck, Yang et al., CVPR 2022.

    Attributes:
        temperature: Of both attention maps.
        foreground_weight: Alpha of the paper.
        background_weight: Beta.
        attention_weight: Gamma.
        relation_weight: Lambda.
        tap: ``'pre_norm'`` takes each level's last convolution before norm and activation, as the authors do;
            ``'output'`` takes what the neck returns.
    """

    temperature: float = 0.5
    foreground_weight: float = 1e-3
    background_weight: float = 5e-4
    attention_weight: float = 1e-3
    relation_weight: float = 5e-6
    tap: Literal['pre_norm', 'output'] = 'pre_norm'

    @property
    def active(self) -> bool:
        """Whether any term has a weight."""
        terms = (self.foreground_weight, self.background_weight, self.attention_weight, self.relation_weight)
        return self.weight != 0 and any(terms)

    def expand(self, name: str, models: ModelPair) -> Parts:
        """One loss per level, each with its own parameters."""
        parts = Parts()
        for index, level in enumerate(models.levels(self.tap)):
            loss = f'loss_{name}_level{index}'
            student, teacher = parts.record_level(loss, level)
            parts.distill_losses[loss] = dict(
                type='mmkd_plugin.FGDLoss',
                channels=level.teacher.channels,
                temperature=self.temperature,
                foreground_weight=self.foreground_weight,
                background_weight=self.background_weight,
                attention_weight=self.attention_weight,
                relation_weight=self.relation_weight,
                loss_weight=self.weight,
            )
            parts.loss_forward_mappings[loss] = dict(student=student, teacher=teacher, **parts.record_ground_truth())
        return parts
