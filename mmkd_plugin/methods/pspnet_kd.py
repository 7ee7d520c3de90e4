"""PSPNetKD, the distillation of main and auxiliary logits, in the ``distill`` block."""

from __future__ import annotations

import dataclasses
from typing import Literal

from mmkd_plugin.errors import DistillError
from mmkd_plugin.methods.base import Method, Parts
from mmkd_plugin.probe.models import HeadPair, ModelPair


@dataclasses.dataclass
class PSPNetKD(Method):
    """Main and auxiliary logits of two encoder-decoders, after the public PSPNet-knowledge-distillation code.

    The total is (1 - alpha) KL + alpha hard loss + auxiliary term; the student's own auxiliary loss keeps its weight.
    All logits are resized to the label's size first, as their heads resize them.

    Attributes:
        temperature: Of the KL terms.
        alpha: Share of the hard loss, the student's own loss of its decode head.
        aux_weight: Weight of the auxiliary term; 0 for models without an auxiliary head.
        aux_divergence: ``'smooth_l1'`` or ``'kl'``.
        aux_target: What the student's auxiliary head imitates: the teacher's ``'aux'`` head, or, as the shipped code
            does, the teacher's ``'main'`` logits.
        aux_index: Which auxiliary head, where there are several.
        ignore: Whether the KL terms leave out the pixels that the decode head's own loss ignores.
    """

    temperature: float = 1.9
    alpha: float = 0.25
    aux_weight: float = 1.0
    aux_divergence: Literal['smooth_l1', 'kl'] = 'smooth_l1'
    aux_target: Literal['aux', 'main'] = 'aux'
    aux_index: int = 0
    ignore: bool = False

    def __post_init__(self) -> None:
        """Refuse a share that is none."""
        super().__post_init__()
        if not 0 <= self.alpha <= 1:
            raise DistillError(f'The alpha of PSPNetKD is {self.alpha:g}; it must lie between 0 and 1.')

    @property
    def active(self) -> bool:
        """Whether any term has a weight."""
        return self.weight != 0 and (self.alpha != 1 or self.aux_weight != 0)

    def expand(self, name: str, models: ModelPair) -> Parts:
        """One loss on the logits of all heads, and the factor alpha on the student's own."""
        heads = models.decode_heads()
        heads.require_same_classes()
        parts = Parts(same_classes=True)
        loss = f'loss_{name}'
        if self.alpha != 1:
            parts.mix('decode.loss', self.alpha, f'{loss}.kl')
        inputs = dict(student=heads.student, teacher=heads.teacher)
        if self.aux_weight:
            inputs.update(self._auxiliary(models, heads))
        parts.distill_losses[loss] = dict(
            type='mmkd_plugin.PSPNetKDLoss',
            kl_weight=1 - self.alpha,
            aux_weight=self.aux_weight,
            aux_divergence=self.aux_divergence,
            temperature=self.temperature,
            align_corners={key: head.align_corners for key, head in inputs.items()},
            ignore_index=heads.student.ignore_index if self.ignore else None,
            loss_weight=self.weight,
        )
        parts.loss_forward_mappings[loss] = dict(
            **{key: parts.record(head.logits, from_student=key.startswith('student')) for key, head in inputs.items()},
            **parts.record_labels(),
        )
        return parts

    def _auxiliary(self, models: ModelPair, heads: HeadPair) -> dict:
        """The heads that the auxiliary term compares."""
        found = {}
        for role, model in (('student', models.student), ('teacher', models.teacher)):
            if role == 'teacher' and self.aux_target == 'main':
                found[role] = heads.teacher
            elif 0 <= self.aux_index < len(model.auxiliary_heads):
                found[role] = model.auxiliary_heads[self.aux_index]
            else:
                raise DistillError(
                    f'The {role}, {model.name}, has no auxiliary head {self.aux_index} with logits to distil '
                    f'({len(model.auxiliary_heads)} in all); set aux_weight=0, or use models that have one.'
                )
        HeadPair(found['student'], found['teacher']).require_same_classes()
        return dict(student_aux=found['student'], teacher_aux=found['teacher'])
