"""Distillation of PSPNet's logits and of its auxiliary head's, after the public PSPNet-knowledge-distillation code."""

from __future__ import annotations

from torch import Tensor, nn

from mmkd_plugin.functional.pspnet_kd import aux_smooth_l1_loss, logits_kl_loss
from mmkd_plugin.registry import MODELS
from mmkd_plugin.utilities.checks import require_choice, require_positive
from mmkd_plugin.utilities.distributed import mean_over_ranks
from mmkd_plugin.utilities.resize import resize_map


@MODELS.register_module()
class PSPNetKDLoss(nn.Module):
    r"""Logits and auxiliary class map; see :mod:`mmkd_plugin.functional.pspnet_kd` for the formulas.

    The method's total is :math:`(1 - \alpha) L_{kl} + \alpha L_{ce} + L_{aux}` with :math:`\alpha = 0.25`; the
    cross-entropy is the student's own loss, which its owner weighs with alpha.

    The auxiliary class map is compared with the teacher's auxiliary head, as the method describes. The shipped code
    compares it with the teacher's main logits; record these as ``teacher_aux`` to reproduce it.

    Args:
        kl_weight: 1 - alpha.
        aux_weight: Weight of the auxiliary term.
        aux_divergence: ``'smooth_l1'`` or ``'kl'``.
        temperature: T of the KL terms.
        align_corners: By the names of the inputs (``'student'``, ``'teacher'``, ``'student_aux'``, ``'teacher_aux'``),
            whether corners are aligned when they are resized to the label's size, as the method does with all logits;
            None resizes nothing and needs no label.
        ignore_index: Label of pixels that the KL terms leave out; None counts every pixel.
        loss_weight: Multiplies both terms.
    """

    def __init__(
        self,
        kl_weight: float = 0.75,
        aux_weight: float = 1.0,
        aux_divergence: str = 'smooth_l1',
        temperature: float = 1.9,
        align_corners: dict[str, bool] | None = None,
        ignore_index: int | None = None,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        require_choice('aux_divergence', aux_divergence, ('smooth_l1', 'kl'))
        require_positive('The temperature of the KL loss', temperature)
        weights = {'kl': kl_weight * loss_weight, 'aux': aux_weight * loss_weight}
        self.weights = {name: weight for name, weight in weights.items() if weight}
        self.aux_divergence = aux_divergence
        self.temperature = temperature
        self.align_corners = align_corners
        self.ignore_index = ignore_index

    def forward(
        self,
        student: Tensor,
        teacher: Tensor,
        student_aux: Tensor | None = None,
        teacher_aux: Tensor | None = None,
        label: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The weighted terms, without those of weight 0.

        Args:
            student: Main logits, ``(N, C, H, W)``.
            teacher: The teacher's, the same shape; detached.
            student_aux: Logits of the auxiliary head, ``(N, C, h, w)``; read where ``aux_weight`` is not 0.
            teacher_aux: The teacher's, the same shape; detached.
            label: ``(N, H, W)``, of the size of the logits where these are not resized; read where ``align_corners`` or
                ``ignore_index`` is set.

        Returns:
            Scalars under ``'kl'`` and ``'aux'``.

        Raises:
            ValueError: If logits differ in shape, or an input is missing or has another size.
        """
        terms = {}
        student, teacher = self._resized(label, student=student, teacher=teacher)
        if 'kl' in self.weights:
            terms['kl'] = self.weights['kl'] * self._kl(student, teacher, label)
        if 'aux' in self.weights:
            if student_aux is None or teacher_aux is None:
                raise ValueError(
                    'The auxiliary loss needs the logits of both auxiliary heads; use models that have one, or set '
                    'aux_weight to 0.'
                )
            student_aux, teacher_aux = self._resized(label, student_aux=student_aux, teacher_aux=teacher_aux)
            kl = self.aux_divergence == 'kl'
            aux = self._kl(student_aux, teacher_aux, label) if kl else aux_smooth_l1_loss(student_aux, teacher_aux)
            terms['aux'] = self.weights['aux'] * aux
        return terms

    def _resized(self, label: Tensor | None, **logits: Tensor) -> list[Tensor]:
        """The logits in the label's size, where that is asked for."""
        if self.align_corners is None:
            return list(logits.values())
        if label is None:
            raise ValueError('Resizing the logits needs the label; record it, or leave align_corners unset.')
        size = (label.shape[-2], label.shape[-1])
        return [resize_map(item, size, align_corners=self.align_corners[name]) for name, item in logits.items()]

    def _kl(self, student: Tensor, teacher: Tensor, label: Tensor | None) -> Tensor:
        """The KL over the pixels that count, whose number is averaged over ranks."""
        if self.ignore_index is None:
            return logits_kl_loss(student, teacher, temperature=self.temperature)
        size = (student.shape[0], *student.shape[2:])
        if label is None or label.shape != size:
            found = 'none' if label is None else f'one of {tuple(label.shape)}'
            raise ValueError(
                f'ignore_index needs a label for logits of {tuple(student.shape)}, that is of {size}, but there is '
                f'{found}; resize the label or the logits, or leave ignore_index unset.'
            )
        valid = label != self.ignore_index
        count = mean_over_ranks(valid.sum().float())
        return logits_kl_loss(student, teacher, temperature=self.temperature, valid=valid, count=count)
