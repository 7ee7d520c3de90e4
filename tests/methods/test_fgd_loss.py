"""The loss of FGD against the authors' numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from _helpers.golden import assert_near, read_golden
from _helpers.loss_tester import Golden, LossTester, total
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from mmkd_plugin.functional import channel_attention, spatial_attention
from mmkd_plugin.methods import DistillLoss, FGDLoss
from mmkd_plugin.registry import MODELS
from mmkd_plugin.utilities.host_syncs import HostSyncs

FILES = ('fgd_basic', 'fgd_align', 'fgd_init', 'fgd_empty_gt')
TERMS = {'foreground': 'fg', 'background': 'bg', 'attention': 'mask', 'relation': 'rela'}
WEIGHTS = {'foreground': 'alpha', 'background': 'beta', 'attention': 'gamma', 'relation': 'lambda'}


class Aligned(DistillLoss):
    """FGD behind the authors' 1x1 convolution."""

    def __init__(self, student_channels: int, channels: int, **options: Any) -> None:
        super().__init__()
        self.align = nn.Conv2d(student_channels, channels, 1) if student_channels != channels else nn.Identity()
        self.loss = FGDLoss(channels, **options)

    def terms(self, student: Tensor, **inputs: Tensor) -> dict[str, Tensor]:
        return self.loss.terms(self.align(student), **inputs)


def parameter_names() -> dict[str, str]:
    """Names of our parameters, by those of the authors."""
    names = {'align': 'align'}
    for side, context in (('s', 'student'), ('t', 'teacher')):
        names[f'conv_mask_{side}'] = f'loss.{context}_context.conv_mask'
        for layer in (0, 1, 3):
            names[f'channel_add_conv_{side}.{layer}'] = f'loss.{context}_context.channel_add_conv.{layer}'
    return {f'{theirs}.{kind}': f'{ours}.{kind}' for theirs, ours in names.items() for kind in ('weight', 'bias')}


def ground_truth(data: dict[str, Tensor]) -> dict[str, Tensor]:
    """Padded boxes of a golden file."""
    boxes = pad_sequence(list(data['gt_bboxes'].split(data['num_boxes'].tolist())), batch_first=True)
    valid = torch.arange(boxes.shape[1])[None] < data['num_boxes'][:, None]
    return {'boxes': boxes, 'valid': valid, 'image_shapes': data['img_shape']}


class TestFGDLoss(LossTester):
    golden_names = tuple(f'{file}:{term}' for file in FILES for term in ('all', *TERMS))
    term_weights = {term: f'{term}_weight' for term in TERMS}

    def build(self, **options):
        return FGDLoss(6, **{'relation_weight': 1e-3, **options})

    def inputs(self):
        generator = torch.Generator().manual_seed(1)
        student, teacher = torch.randn(2, 3, 6, 8, 10, generator=generator)
        boxes = torch.tensor(
            [[[5, 6, 40, 30], [20, 8, 60, 50]], [[0, 0, 9, 9], [0, 0, 0, 0]], [[0, 0, 0, 0], [0, 0, 0, 0]]]
        )
        valid = torch.tensor([[True, True], [True, False], [False, False]])
        shapes = torch.tensor([[64, 80], [60, 72], [64, 80]])
        return {
            'student': student,
            'teacher': teacher,
            'boxes': boxes.float(),
            'valid': valid,
            'image_shapes': shapes,
        }

    def golden(self, name):
        file, term = name.split(':')
        data = read_golden(file)
        if term == 'all':
            weights = {ours: data[f'hyp_{theirs}_fgd'].item() for ours, theirs in WEIGHTS.items()}
            gradients = {'student': data['grad_S_loss']}
        else:
            weights = {ours: float(ours == term) for ours in TERMS}
            gradients = {'student': data[f'grad_S_{TERMS[term]}_loss']}
        options = {f'{ours}_weight': weight for ours, weight in weights.items()}
        loss = Aligned(data['preds_S'].shape[1], 8, temperature=data['hyp_temp'].item(), **options).double()
        state = {
            ours: data[f'param.{theirs}'] for theirs, ours in parameter_names().items() if ours in loss.state_dict()
        }
        loss.load_state_dict(state)
        if term == 'all':
            gradients.update(
                {ours: data[f'grad_param.{theirs}'] for theirs, ours in parameter_names().items() if ours in state}
            )
        inputs = {'student': data['preds_S'], 'teacher': data['preds_T'], **ground_truth(data)}
        terms = {ours: weights[ours] * data[f'out_{theirs}_loss'] for ours, theirs in TERMS.items() if weights[ours]}
        return Golden(loss, inputs, terms, gradients, tolerance=1e-6)

    def test_sum_of_the_terms_equals_the_authors_loss(self):
        for file in FILES:
            case = self.golden(f'{file}:all')
            assert_near(total(case.loss.terms(**case.inputs)), read_golden(file)['out_loss'], 1e-6, name=file)

    def test_no_box_in_the_batch(self):
        inputs = self.inputs()
        inputs['valid'] = torch.zeros_like(inputs['valid'])
        expected = self._loss().terms(**inputs)
        inputs['boxes'], inputs['valid'] = torch.zeros(3, 0, 4), torch.zeros(3, 0, dtype=torch.bool)
        terms = self._loss().terms(**inputs)
        assert terms['foreground'] == 0
        for name, term in terms.items():
            assert_near(term, expected[name], 0, name=name)

    def test_padding_rows_do_not_matter(self):
        inputs = self.inputs()
        expected = self._loss().terms(**inputs)
        inputs['boxes'] = torch.cat([inputs['boxes'], torch.full((3, 4, 4), float('nan'))], 1)
        inputs['valid'] = torch.cat([inputs['valid'], torch.zeros(3, 4, dtype=torch.bool)], 1)
        assert_near(total(self._loss().terms(**inputs)), total(expected), 0)

    def test_terms_are_divided_by_the_area_of_the_images_in_the_usual_one(self):
        inputs = self.inputs()
        height, width = inputs['image_shapes'].amax(0).tolist()
        torch.manual_seed(0)
        expected = FGDLoss(6).terms(**inputs)
        torch.manual_seed(0)
        for name, term in FGDLoss(6, usual_size=(height, 2 * width)).terms(**inputs).items():
            assert_near(term, 2 * expected[name], 1e-6, name=name)

    def test_areas_together_are_the_whole_map_without_a_box(self):
        inputs = self.inputs()
        options = dict(attention_weight=0, relation_weight=0)
        terms = FGDLoss(6, **options, areas='together').terms(**inputs)
        inputs['valid'] = torch.zeros_like(inputs['valid'])
        assert set(terms) == {'background'}
        assert_near(terms['background'], FGDLoss(6, **options).terms(**inputs)['background'], 0)

    @pytest.mark.parametrize('attend', ['spatial', 'channel', 'none'])
    def test_attentions_alone(self, attend):
        inputs = self.inputs()
        student, teacher = inputs['student'], inputs['teacher']
        terms = FGDLoss(6, 0.5, 0, 1, 1, 0, areas='together', attend=attend).terms(**inputs)
        weight = torch.ones_like(teacher)
        compared = torch.zeros(())
        if attend == 'spatial':
            weight = spatial_attention(teacher)[:, None]
            compared = (spatial_attention(student) - spatial_attention(teacher)).abs().sum() / 3
        elif attend == 'channel':
            weight = channel_attention(teacher)[..., None, None]
            compared = (channel_attention(student) - channel_attention(teacher)).abs().sum() / 3
        cells = student.shape[2] * student.shape[3]
        assert_near(terms['background'], (weight * (student - teacher) ** 2).sum() / cells / 3, 1e-5)
        assert_near(terms.get('attention', torch.zeros(())), compared, 1e-5, floor=1)
        assert ('attention' in terms) is (attend != 'none')

    def test_relation_starts_as_the_squared_difference(self):
        inputs = self.inputs()
        expected = ((inputs['student'] - inputs['teacher']) ** 2).sum() / 3
        assert_near(FGDLoss(6, relation_weight=1).terms(**inputs)['relation'], expected, 1e-6)

    def test_different_sizes_are_refused(self):
        inputs = self.inputs()
        inputs['teacher'] = inputs['teacher'][..., :-1]
        with pytest.raises(ValueError, match=r'\(3, 6, 8, 10\).*\(3, 6, 8, 9\).*connector'):
            self._loss().terms(**inputs)

    def test_zero_temperature_is_refused(self):
        with pytest.raises(ValueError, match='temperature'):
            FGDLoss(6, temperature=0)

    def test_no_parameter_without_the_relation_term(self):
        assert not list(FGDLoss(6, relation_weight=0).parameters())

    def test_it_is_registered(self):
        assert MODELS.module_dict['FGDLoss'] is FGDLoss

    def test_three_hundred_boxes_without_waiting(self):
        generator = torch.Generator().manual_seed(2)
        corner, extent = torch.rand(2, 2, 300, 2, generator=generator)
        boxes = torch.cat([corner * 700, corner * 700 + extent * 300], -1)
        student, teacher = torch.randn(2, 2, 4, 100, 168, generator=generator)
        valid, shapes = torch.ones(2, 300, dtype=torch.bool), torch.tensor([[800, 1344], [750, 1333]])
        loss = FGDLoss(4)
        with HostSyncs() as syncs:
            value = loss(student, teacher, boxes, valid, shapes)
        assert syncs.calls == []
        assert torch.isfinite(value)
