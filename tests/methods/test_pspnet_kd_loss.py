"""The loss on PSPNet's logits and auxiliary distillation against recorded numbers and arithmetic done by hand."""

from __future__ import annotations

import pytest
import torch
from _helpers.golden import assert_near, read_golden
from _helpers.loss_tester import Golden, LossTester
from _helpers.ranks import terms_on_ranks
from torch import Tensor
from torch.nn.functional import cross_entropy

from mmkd_plugin.methods import DistillLoss, PSPNetKDLoss
from mmkd_plugin.registry import MODELS


class WithHardLoss(DistillLoss):
    """The KL together with the student's cross-entropy."""

    def __init__(self, loss: DistillLoss, alpha: float, label: Tensor) -> None:
        super().__init__()
        self.loss, self.alpha, self.label = loss, alpha, label

    def terms(self, student: Tensor, teacher: Tensor) -> dict[str, Tensor]:
        return {
            **self.loss.terms(student, teacher),
            'ce': self.alpha * cross_entropy(student, self.label, ignore_index=255),
        }


class TestPSPNetKDLoss(LossTester):
    golden_names = ('kl', 'valid', 'aux', 'aux_kl', 'shipped', 'main')
    student = ('student', 'student_aux')
    teacher = ('teacher', 'teacher_aux')
    term_weights = {'aux': 'aux_weight'}

    def build(self, **options):
        return PSPNetKDLoss(**options)

    def inputs(self):
        generator = torch.Generator().manual_seed(1)
        names = ('student', 'teacher', 'student_aux', 'teacher_aux')
        label = torch.randint(0, 3, (3, 4, 6), generator=generator)
        return {**{name: torch.randn(3, 5, 4, 6, generator=generator) for name in names}, 'label': label}

    def golden(self, name):
        data = read_golden('pspnet_kd_voc21')
        temperature, alpha = data['temperature'].item(), data['alpha'].item()
        logits = {'student': data['student_logits'], 'teacher': data['teacher_logits']}
        aux = {**logits, 'student_aux': data['student_aux'], 'teacher_aux': data['teacher_aux']}
        kl = {'hard_share': 0, 'aux_weight': 0, 'temperature': temperature}
        if name == 'kl':
            gradients = {'student': data['grad_student_kl_per_pixel']}
            return Golden(PSPNetKDLoss(**kl), logits, {'kl': data['out_kl_per_pixel']}, gradients)
        if name == 'valid':
            loss, inputs = PSPNetKDLoss(**kl, ignore_index=255), {**logits, 'label': data['label']}
            return Golden(loss, inputs, {'kl': data['out_kl_per_pixel_valid_only']}, {})
        if name == 'aux':
            gradients = {'student_aux': data['grad_aux_smoothl1']}
            return Golden(PSPNetKDLoss(hard_share=1, aux_weight=1), aux, {'aux': data['out_aux_smoothl1']}, gradients)
        # The released code averages over the 21 classes and multiplies by 19.
        if name == 'aux_kl':
            loss = PSPNetKDLoss(temperature, 1, 19 / 21, 'kl')
            gradients = {'student_aux': data['grad_aux_kl_official_style']}
            return Golden(loss, aux, {'aux': data['out_aux_kl_official_style']}, gradients)
        kl['hard_share'] = 1 - (1 - alpha) * 19 / 21
        if name == 'main':
            terms = {'kl': (1 - alpha) * data['out_kl_official'], 'ce': alpha * data['out_ce']}
            loss = WithHardLoss(PSPNetKDLoss(**kl), alpha, data['label'])
            return Golden(loss, logits, terms, {'student': data['grad_student_main']})
        kl['aux_weight'] = 1
        aux['teacher_aux'] = data['teacher_logits']
        terms = {'kl': (1 - alpha) * data['out_kl_official'], 'aux': data['out_aux_smoothl1_vs_teacher_main']}
        gradients = {'student': (1 - alpha) * data['grad_student_kl']}
        return Golden(PSPNetKDLoss(**kl), aux, terms, gradients)

    def test_share_of_the_hard_loss(self):
        # Without any the KL counts in full; with three quarters, a quarter of it; with all, nothing, not even a term.
        inputs = self.inputs()
        full = self.build(hard_share=0).terms(**inputs)
        assert_near(self.build(hard_share=0.75).terms(**inputs)['kl'], full['kl'] / 4, 1e-6)
        assert set(self.build(hard_share=1).terms(**inputs)) == {'aux'}

    def test_the_kl_may_have_a_weight_of_its_own(self):
        inputs = self.inputs()
        full = self.build(hard_share=0).terms(**inputs)['kl']
        for share in (0.25, 1):
            assert_near(self.build(hard_share=share, kl_weight=2).terms(**inputs)['kl'], 2 * full, 1e-6)
        assert set(self.build(hard_share=0.25, kl_weight=0).terms(**inputs)) == {'aux'}

    @pytest.mark.parametrize('head', ['kl', 'aux'])
    def test_ignored_pixels_do_not_count(self, head):
        inputs = self.inputs()
        loss = self.build(aux_divergence='kl', ignore_index=2)
        expected = loss.terms(**inputs)[head]
        ignored = (inputs['label'] == 2)[:, None]
        changed = {
            name: item + 5 * ignored * torch.randn(3, 5, 4, 6) for name, item in inputs.items() if name != 'label'
        }
        assert_near(loss.terms(**changed, label=inputs['label'])[head], expected, 1e-6)
        assert (self.build(aux_divergence='kl').terms(**inputs)[head] - expected).abs() > 1e-3

    def test_all_pixels_ignored_gives_zero(self):
        inputs = {**self.inputs(), 'label': torch.full((3, 4, 6), 255)}
        inputs['student'].requires_grad_()
        loss = self.build(ignore_index=255).terms(**inputs)['kl']
        loss.backward()
        assert loss == 0
        assert inputs['student'].grad.eq(0).all()

    def test_ranks_share_the_normaliser(self):
        inputs = self.inputs()
        inputs['label'] = torch.arange(72).view(3, 4, 6) // 30
        loss = self.build(ignore_index=0)
        both = {name: item[:2] for name, item in inputs.items()}
        ranks = terms_on_ranks(loss, [{name: item[i : i + 1] for name, item in inputs.items()} for i in range(2)])
        assert_near((ranks[0]['kl'] + ranks[1]['kl']) / 2, loss.terms(**both)['kl'], 1e-6)

    def test_hardly_any_label_counts_as_a_hundredth(self):
        """Of 3 x 4 x 6 pixels one has a label: a floor below it, above it, and on the mean over ranks."""
        inputs = self.inputs()
        inputs['label'] = torch.full((3, 4, 6), 255)
        inputs['label'][0, 0, 0] = 1
        terms = [self.build(ignore_index=255, min_valid=share).terms(**inputs)['kl'] for share in (0, 0.01, 0.25, 1)]
        assert_near(torch.stack(terms), terms[0] / torch.tensor([1, 1, 18, 72]), 1e-6)
        full = {**inputs, 'label': torch.zeros(3, 4, 6).long()}
        ranks = terms_on_ranks(self.build(ignore_index=255, min_valid=0.6), [inputs, full])
        # 1 and 72 of them: a mean of 36.5, which is less than 0.6 of 72.
        assert_near(ranks[0]['kl'], terms[0] / 43.2, 1e-6)

    def test_aux_is_not_needed_without_its_weight(self):
        inputs = self.inputs()
        assert set(self.build(aux_weight=0).terms(inputs['student'], inputs['teacher'])) == {'kl'}

    def test_aux_may_have_another_size(self):
        inputs = self.inputs()
        inputs['student_aux'], inputs['teacher_aux'] = torch.randn(2, 3, 5, 2, 3)
        assert self.build().terms(**inputs)['aux'] > 0

    @pytest.mark.parametrize(
        ('changes', 'match'),
        [
            ({'student_aux': None}, 'auxiliary heads.*aux_weight to 0'),
            ({'teacher_aux': None}, 'auxiliary heads.*aux_weight to 0'),
            ({'teacher': torch.zeros(3, 6, 4, 6)}, r'classes.*resize'),
            ({'teacher_aux': torch.zeros(3, 5, 2, 3)}, r'classes.*resize'),
            ({'label': None}, r'of \(3, 4, 6\), but there is none'),
            ({'label': torch.zeros(3, 8, 12)}, r'of \(3, 4, 6\), but there is one of \(3, 8, 12\)'),
        ],
    )
    def test_inputs_that_do_not_fit_are_refused(self, changes, match):
        with pytest.raises(ValueError, match=match):
            self.build(ignore_index=255)(**{**self.inputs(), **changes})

    @pytest.mark.parametrize(
        ('options', 'match'),
        [({'aux_divergence': 'l2'}, "aux_divergence\" is 'l2'"), ({'temperature': 0}, 'temperature" is 0')],
    )
    def test_wrong_option_is_refused(self, options, match):
        with pytest.raises(ValueError, match=match):
            PSPNetKDLoss(**options)

    def test_it_is_registered(self):
        assert MODELS.module_dict['PSPNetKDLoss'] is PSPNetKDLoss
