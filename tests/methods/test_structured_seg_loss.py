"""The pixel-wise and the pair-wise loss against the authors' numbers and arithmetic done by hand."""

from __future__ import annotations

import math
from unittest import mock

import pytest
import torch
from _helpers.golden import assert_near, read_golden
from _helpers.loss_tester import Golden, LossTester
from torch.nn.functional import avg_pool2d, max_pool2d

from mmkd_plugin.methods import PairWiseLoss, PixelWiseLoss
from mmkd_plugin.registry import MODELS

GROUPS = ('a_9x9_s0.5', 'b_8x11_s0.5', 'c_9x12_s0.25', 'd_33x33_s0.5', 'e_nopool')


class TestPixelWiseLoss(LossTester):
    golden_names = ('released', 'kl_released', 'mean', 'ce_mean', 'element')
    term_weights = {'pixel': 'loss_weight'}

    def build(self, **options):
        return PixelWiseLoss(**options)

    def inputs(self):
        student, teacher = torch.randn(2, 3, 5, 4, 6, generator=torch.Generator().manual_seed(1))
        return {'student': student, 'teacher': teacher}

    def golden(self, name):
        data = read_golden('structured_seg_pixelwise')
        inputs = {'student': data['logits_S'], 'teacher': data['logits_T']}
        # Three images, so the mean over pixels is a third of the released sum and has a third of its gradient.
        loss, value, gradient = {
            'released': (PixelWiseLoss(reduction='batch_sum', loss_weight=1), data['out_pixelwise_ce'], data['grad_S']),
            'kl_released': (
                PixelWiseLoss('kl', 'batch_sum', loss_weight=1),
                data['out_kl_same_normalisation'],
                data['grad_S'],
            ),
            'mean': (PixelWiseLoss('kl', loss_weight=1), data['out_kl_per_pixel_mean'], data['grad_S'] / 3),
            'ce_mean': (PixelWiseLoss(loss_weight=1), data['out_pixelwise_ce'] / 3, data['grad_S'] / 3),
            'element': (
                PixelWiseLoss('kl', 'element_mean', loss_weight=1),
                data['out_torchdistiller_kd_elementwise_mean'],
                data['grad_S_torchdistiller'],
            ),
        }[name]
        return Golden(loss, inputs, {'pixel': value}, {'student': gradient})

    def test_a_sum_over_the_batch_is_one_over_all_processes(self):
        # Gradients are averaged over the processes, so that each must count for as many as there are.
        inputs = {name: item[:2] for name, item in self.inputs().items()}
        loss = PixelWiseLoss(reduction='batch_sum', loss_weight=1)
        whole = loss.terms(**inputs)['pixel']
        with mock.patch('mmkd_plugin.methods.structured_seg.get_world_size', return_value=2):
            parts = [loss.terms(**{name: item[i : i + 1] for name, item in inputs.items()})['pixel'] for i in range(2)]
            mean = PixelWiseLoss(loss_weight=1).terms(**inputs)['pixel']
        assert_near((parts[0] + parts[1]) / 2, whole, 1e-6)
        assert_near(PixelWiseLoss(loss_weight=1).terms(**inputs)['pixel'], mean, 0)

    def test_temperature_by_hand(self):
        # At T = log 3 / log 2 the odds of 3 become 2: KL of (2/3, 1/3) to (1/2, 1/2) is 5/3 log 2 - log 3.
        teacher = torch.tensor([math.log(3.0), 0.0]).view(1, 2, 1, 1)
        loss = PixelWiseLoss('kl', temperature=math.log(3) / math.log(2), loss_weight=1)
        expected = 5 / 3 * math.log(2) - math.log(3)
        assert_near(loss(torch.zeros(1, 2, 1, 1), teacher), torch.tensor(expected), 1e-5)

    def test_kl_of_equal_logits_is_zero(self):
        logits = torch.randn(1, 4, 3, 3)
        assert_near(PixelWiseLoss('kl', loss_weight=1)(logits, logits), torch.tensor(0.0), 1e-6, floor=1)

    def test_certain_teacher_is_finite(self):
        teacher = torch.tensor([1e4, -1e4]).view(1, 2, 1, 1)
        for divergence in ('kl', 'cross_entropy'):
            loss = PixelWiseLoss(divergence, loss_weight=1)(-teacher, teacher)
            assert loss == 2e4

    def test_crop_size_does_not_matter(self):
        inputs = self.inputs()
        larger = {name: item.repeat(1, 1, 3, 2) for name, item in inputs.items()}
        assert_near(self.build()(**larger), self.build()(**inputs), 1e-5)

    @pytest.mark.parametrize('shape', [(1, 4, 3, 3), (1, 5, 3, 4)], ids=['classes', 'size'])
    def test_different_logits_are_refused(self, shape):
        with pytest.raises(ValueError, match='classes.*resize'):
            self.build()(torch.zeros(1, 5, 3, 3), torch.zeros(shape))

    @pytest.mark.parametrize('option', ['divergence', 'reduction'])
    def test_unknown_option_is_refused(self, option):
        with pytest.raises(ValueError, match=f'"PixelWiseLoss.{option}" is \'mse\'; it must be '):
            PixelWiseLoss(**{option: 'mse'})

    def test_zero_temperature_is_refused(self):
        with pytest.raises(ValueError, match='"PixelWiseLoss.temperature" is 0; it must be a number above 0'):
            PixelWiseLoss(temperature=0)


class TestPairWiseLoss(LossTester):
    golden_names = GROUPS
    term_weights = {'pair': 'loss_weight'}

    def build(self, **options):
        return PairWiseLoss(**options)

    def inputs(self):
        generator = torch.Generator().manual_seed(1)
        student, teacher = (torch.randn(3, channels, 6, 9, generator=generator) for channels in (4, 7))
        return {'student': student, 'teacher': teacher}

    def golden(self, name):
        data = read_golden('structured_seg_pairwise')
        options = {'scale': data[f'{name}.pool_scale'].item()} if f'{name}.pool_scale' in data else {'patch': 1}
        inputs = {'student': data[f'{name}.feat_S'], 'teacher': data[f'{name}.feat_T']}
        gradients = {'student': data[f'{name}.grad_S']}
        return Golden(
            PairWiseLoss(**options, loss_weight=1), inputs, {'pair': data[f'{name}.out_loss']}, gradients, 1e-5
        )

    @pytest.mark.parametrize('group', GROUPS[:4])
    def test_gradient_through_the_norm_is_another(self, group):
        data = read_golden('structured_seg_pairwise')
        student = data[f'{group}.feat_S'].requires_grad_()
        loss = PairWiseLoss(data[f'{group}.pool_scale'].item(), detach_norm=False, loss_weight=1)
        loss(student, data[f'{group}.feat_T']).backward()
        through = data[f'{group}.grad_S_if_norm_not_detached']
        assert_near(student.grad, through, 1e-5)
        assert (data[f'{group}.grad_S'] - through).abs().max() > 0.1 * through.abs().max()

    @pytest.mark.parametrize(('pooling', 'function'), [('max', max_pool2d), ('avg', avg_pool2d)])
    def test_patches_in_cells(self, pooling, function):
        # 6 x 9 cells in patches of 2 x 3, or in patches of 4 x 4 of which the last hang over.
        inputs = self.inputs()
        for patch in ((2, 3), 4):
            pooled = {name: function(item, patch, patch, ceil_mode=True) for name, item in inputs.items()}
            expected = PairWiseLoss(1, patch=1)(**pooled)
            assert_near(PairWiseLoss(1, patch=patch, pooling=pooling)(**inputs), expected, 1e-6)

    def test_zero_vector_has_a_finite_gradient_through_the_norm(self):
        student = torch.zeros(1, 3, 2, 2, requires_grad=True)
        PairWiseLoss(patch=1, detach_norm=False)(student, torch.randn(1, 3, 2, 2)).backward()
        assert torch.isfinite(student.grad).all()

    def test_too_many_nodes_are_refused_with_the_size(self):
        # (128 * 256)^2 similarities of 4 bytes are 4 GiB an image.
        feature = torch.zeros(1).expand(2, 8, 128, 256)
        with pytest.raises(ValueError, match=r'128 x 256 nodes and 2 images needs 8\.0 GiB.*max_gib = 1;'):
            PairWiseLoss(patch=1)(feature, feature)

    def test_limit_is_an_option(self):
        feature = torch.randn(1, 2, 16, 16)
        # 256^2 * 4 bytes are 2^-12 GiB.
        PairWiseLoss(patch=1, max_gib=2**-12)(feature, feature)
        with pytest.raises(ValueError, match='max_gib'):
            PairWiseLoss(patch=1, max_gib=2**-12 * 0.99)(feature, feature)

    @pytest.mark.parametrize(
        ('options', 'size', 'match'),
        [
            ({'scale': 0.1}, (8, 30), '0 x 3 cells of a map of 8 x 30'),
            ({'patch': 8}, (6, 7), 'leaves one'),
            ({'scale': 1.0}, (6, 7), 'leaves one'),
        ],
    )
    def test_map_that_cannot_be_pooled_is_refused(self, options, size, match):
        with pytest.raises(ValueError, match=match):
            PairWiseLoss(**options)(torch.zeros(1, 2, *size), torch.zeros(1, 2, *size))

    def test_different_sizes_are_refused(self):
        with pytest.raises(ValueError, match='8 x 8 cells and the teacher 4 x 8'):
            self.build()(torch.zeros(1, 2, 8, 8), torch.zeros(1, 2, 4, 8))

    def test_unknown_pooling_is_refused(self):
        with pytest.raises(ValueError, match="\"PairWiseLoss.pooling\" is 'sum'; it must be 'max' or 'avg'"):
            PairWiseLoss(pooling='sum')


@pytest.mark.parametrize('loss', [PixelWiseLoss, PairWiseLoss])
def test_it_is_registered(loss):
    assert MODELS.module_dict[loss.__name__] is loss
