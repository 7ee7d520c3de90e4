"""Distillation of PSPNet's logits and of its auxiliary head's, after the public PSPNet-knowledge-distillation code."""

from __future__ import annotations

from typing import Any, Dict, Optional

import torch
from torch import Tensor
from typing_extensions import Annotated, Literal

from mmkd_plugin.errors import DistillError
from mmkd_plugin.functional.pspnet_kd import aux_smooth_l1_loss, logits_kl_loss
from mmkd_plugin.methods.base import Method
from mmkd_plugin.methods.loss import DistillLoss
from mmkd_plugin.methods.parts import Parts
from mmkd_plugin.probe.models import HeadPair, ModelPair
from mmkd_plugin.registry import METHODS, MODELS
from mmkd_plugin.utilities.distributed import mean_over_ranks
from mmkd_plugin.utilities.settings import AtLeast, Factor, Positive, Share, Weight, Within


@MODELS.register_module()
class PSPNetKDLoss(DistillLoss):
    r"""Logits and auxiliary class map; see :mod:`mmkd_plugin.functional.pspnet_kd` for the formulas.

    The method's total is :math:`(1 - \alpha) L_{kl} + \alpha L_{ce} + L_{aux}`; the cross-entropy is the student's own
    loss, which its owner weighs with alpha, here ``hard_share``. All logits are compared in the size of the
    label, to which the method resizes them.

    The auxiliary class map is compared with the teacher's auxiliary head, as the method describes. The shipped code
    compares it with the teacher's main logits; record these as ``teacher_aux`` to reproduce it.

    Args:
        temperature: Of the KL terms.
        hard_share: Alpha, the share of the hard loss, the student's own of its decode head; the KL term has the rest.
        aux_weight: Weight of the auxiliary term; 0 for models without an auxiliary head.
        aux_divergence: How the auxiliary class maps are compared, ``'smooth_l1'`` or ``'kl'``.
        kl_weight: Weight of the KL term in place of what ``hard_share`` leaves it; with ``hard_share=1, kl_weight=2``
            the student's own loss stays whole.
        ignore_index: Label of pixels that the KL terms leave out; None counts every pixel.
        min_valid: Share of the pixels that the KL terms are divided by at least, where some are left out, so that a
            batch with hardly any label does not weigh more than its pixels; 0 divides by those that count alone.
        loss_weight: Factor on all terms; 0 switches the method off.
    """

    def __init__(
        self,
        temperature: Positive = 1.9,
        hard_share: Share = 0.25,
        aux_weight: Weight = 1.0,
        aux_divergence: Literal['smooth_l1', 'kl'] = 'smooth_l1',
        kl_weight: Optional[Weight] = None,
        ignore_index: Optional[int] = None,
        min_valid: Annotated[float, Within(0, 1)] = 0.01,
        loss_weight: Factor = 1.0,
    ) -> None:
        super().__init__()
        soft = 1 - hard_share if kl_weight is None else kl_weight
        weights = {'kl': soft * loss_weight, 'aux': aux_weight * loss_weight}
        self.weights = {name: weight for name, weight in weights.items() if weight}
        self.aux_divergence = aux_divergence
        self.temperature = temperature
        self.ignore_index = ignore_index
        self.min_valid = min_valid

    def terms(
        self,
        student: Tensor,
        teacher: Tensor,
        student_aux: Optional[Tensor] = None,
        teacher_aux: Optional[Tensor] = None,
        label: Optional[Tensor] = None,
    ) -> Dict[str, Tensor]:
        """The weighted terms, without those of weight 0.

        Args:
            student: Main logits, ``(N, C, H, W)``.
            teacher: The teacher's, the same shape; detached.
            student_aux: Logits of the auxiliary head, ``(N, C, h, w)``; read where ``aux_weight`` is not 0.
            teacher_aux: The teacher's, the same shape; detached.
            label: ``(N, H, W)``, of the size of the logits; read where ``ignore_index`` is set.

        Returns:
            Scalars under ``'kl'`` and ``'aux'``.

        Raises:
            ValueError: If logits differ in shape, or an input is missing or has another size.
        """
        terms = {}
        if 'kl' in self.weights:
            terms['kl'] = self.weights['kl'] * self._kl(student, teacher, label)
        if 'aux' in self.weights:
            if student_aux is None or teacher_aux is None:
                raise ValueError(
                    'The auxiliary loss needs the logits of both auxiliary heads; use models that have one, or set '
                    'aux_weight to 0.'
                )
            kl = self.aux_divergence == 'kl'
            aux = self._kl(student_aux, teacher_aux, label) if kl else aux_smooth_l1_loss(student_aux, teacher_aux)
            terms['aux'] = self.weights['aux'] * aux
        return terms

    def _kl(self, student: Tensor, teacher: Tensor, label: Optional[Tensor]) -> Tensor:
        """The KL over the pixels that count, whose number is averaged over ranks and has a floor."""
        if self.ignore_index is None:
            return logits_kl_loss(student, teacher, temperature=self.temperature)
        size = (student.shape[0], *student.shape[2:])
        if label is None or label.shape != size:
            shape = 'none' if label is None else f'one of {tuple(label.shape)}'
            raise ValueError(
                f'ignore_index needs a label for logits of {tuple(student.shape)}, that is of {size}, but there is '
                f'{shape}; resize the label or the logits, or leave ignore_index unset.'
            )
        valid = label != self.ignore_index
        found = valid.sum().float()
        floor = found.new_full((), self.min_valid * valid.numel())
        count = mean_over_ranks(torch.stack([found, floor])).amax()
        return logits_kl_loss(student, teacher, temperature=self.temperature, valid=valid, count=count)


@METHODS.register_module()
class PSPNetKD(Method):
    """Main and auxiliary logits of two encoder-decoders, after the public PSPNet-knowledge-distillation code.

    The total is ``(1 - hard_share) * KL + hard_share * hard loss + auxiliary term``; the student's own auxiliary loss
    keeps its weight. All logits are resized to the label's size first, as their heads resize them.

    Attributes:
        aux_target: What the student's auxiliary head imitates: the teacher's ``'aux'`` head, or, as the shipped code
            does, the teacher's ``'main'`` logits.
        aux_index: Which auxiliary head, where there are several.
        ignore: Whether the KL terms leave out the pixels that the decode head's own loss ignores.
    """

    task = 'segmentation'
    losses = {'': PSPNetKDLoss}
    given = ('ignore_index',)
    renamed = {'alpha': 'hard_share'}

    aux_target: Literal['aux', 'main'] = 'aux'
    aux_index: Annotated[int, AtLeast(0)] = 0
    ignore: bool = False

    def check_unlabelled(self, where: str) -> None:
        """Refuse ``ignore``, which leaves out every pixel of an image without labels."""
        if self.ignore:
            raise DistillError(
                f'"{where}.ignore" leaves out the pixels without a label, and so all unlabelled images; set it to '
                'False, or leave distill.unlabelled out.'
            )

    def expand(self, name: str, models: ModelPair) -> Parts:
        """One loss on the logits of all heads, and the factor hard_share on the student's own."""
        heads = models.decode_heads()
        heads.require_same_classes()
        parts = Parts(same_classes=True)
        loss = f'loss_{name}'
        if self.hard_share != 1:
            parts.mix('decode.loss', self.hard_share, f'{loss}.kl')
        inputs = dict(student=heads.student, teacher=heads.teacher)
        if self.aux_weight:
            inputs.update(self._auxiliary(models, heads))
        arguments: Dict[str, Any] = {}
        for key, head in inputs.items():
            entry = parts.record(head.logits, from_student=key.startswith('student'))
            arguments[key] = dict(entry, like='label', align_corners=head.align_corners)
        config = self.loss_config(ignore_index=heads.student.ignore_index if self.ignore else None)
        parts.add_loss(loss, config, **parts.record_facts('label'), **arguments)
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
