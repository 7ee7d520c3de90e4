"""The loss of FGI against the authors' numbers, and its regions against arithmetic done by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from _helpers.golden import assert_near, read_golden
from _helpers.loss_tester import Golden, LossTester
from _helpers.ranks import terms_on_ranks
from torch import Tensor, nn

from mmkd_plugin.methods import DistillLoss, FGILoss
from mmkd_plugin.registry import MODELS
from mmkd_plugin.utilities.host_syncs import HostSyncs

READINGS = {'assigned': 'assigned', 'all': 'allgt', 'global': 'globalmax'}


class Adapted(DistillLoss):
    """FGI on one level behind the authors' 3x3 convolution."""

    def __init__(self, relu: bool, **options: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, 6, 3, padding=1)
        self.relu = nn.ReLU() if relu else nn.Identity()
        self.loss = FGILoss(reading='all', plus_one_pixel=True, **options)

    def terms(self, student: list[Tensor], **inputs) -> dict[str, Tensor]:
        return self.loss.terms([self.relu(self.conv(student[0]))], **inputs)


def grid_anchors(height: int, width: int, stride: int, shapes: tuple[tuple[float, float], ...]) -> Tensor:
    """Anchors of these widths and heights around the centre of every cell, ``(H, W, K, 4)``."""
    y, x = torch.meshgrid((torch.arange(height) + 0.5) * stride, (torch.arange(width) + 0.5) * stride, indexing='ij')
    half = torch.tensor(shapes) / 2
    centre = torch.stack([x, y], -1)[:, :, None]
    return torch.cat([centre - half, centre + half], -1)


class TestFGILoss(LossTester):
    golden_names = ('relu', 'no_relu')
    shared = ('priors',)
    term_weights = {'imitation': 'loss_weight'}

    def build(self, **options):
        return FGILoss(**options)

    def inputs(self):
        generator = torch.Generator().manual_seed(1)
        sizes = ((8, 10), (4, 5))
        student = [torch.randn(3, 6, *size, generator=generator) for size in sizes]
        teacher = [torch.randn(3, 6, *size, generator=generator) for size in sizes]
        priors = [
            grid_anchors(*size, stride, ((4.0 * stride, 2.0 * stride), (3.0 * stride, 3.0 * stride))).reshape(-1, 4)
            for size, stride in zip(sizes, (16, 32))
        ]
        boxes = torch.tensor(
            [[[5, 6, 140, 120], [20, 8, 60, 50]], [[0, 0, 30, 30], [0, 0, 0, 0]], [[0, 0, 0, 0], [0, 0, 0, 0]]]
        )
        valid = torch.tensor([[True, True], [True, False], [False, False]])
        return {'student': student, 'teacher': teacher, 'priors': priors, 'boxes': boxes.float(), 'valid': valid}

    def golden(self, name):
        data, masks = read_golden('fgi_imitation_bs1'), read_golden('fgi_mask_official')
        relu = name == 'relu'
        loss = Adapted(relu, loss_weight=0.01 if relu else 1).double()
        loss.conv.load_state_dict({'weight': data['adap_weight'], 'bias': data['adap_bias']})
        inputs = {
            'student': [data['stu_feature']],
            'teacher': [data['sup_feature']],
            'priors': [masks['all_anchors'].double()],
            'boxes': masks['gt_boxes'][:1, :3, :4].double(),
            'valid': torch.ones(1, 3, dtype=torch.bool),
        }
        if not relu:
            return Golden(
                loss, inputs, {'imitation': data['out_raw_no_relu']}, {'student.0': data['grad_stu_raw_no_relu']}
            )
        gradients = {
            'student.0': data['grad_stu'],
            'conv.weight': data['grad_adap_weight'],
            'conv.bias': data['grad_adap_bias'],
        }
        return Golden(loss, inputs, {'imitation': data['out_loss']}, gradients)

    @pytest.mark.parametrize('region', ['anchors', 'boxes'])
    def test_no_box_at_all_gives_zero(self, region):
        inputs = self.inputs()
        inputs['boxes'], inputs['valid'] = torch.zeros(3, 0, 4), torch.zeros(3, 0, dtype=torch.bool)
        inputs['student'][0].requires_grad_()
        loss = self.build(region=region, strides=(16, 32)).terms(**inputs)['imitation']
        loss.backward()
        assert loss == 0
        assert inputs['student'][0].grad.eq(0).all()

    @pytest.mark.parametrize('reading', READINGS)
    def test_every_reading_is_finite_without_waiting(self, reading):
        inputs = self.inputs()
        loss = self.build(reading=reading)
        with HostSyncs() as syncs:
            value = loss(**inputs)
        assert syncs.calls == []
        assert value > 0

    def test_whole_map(self):
        # Every cell of both levels: half the squared difference per cell and image, levels added.
        inputs = self.inputs()
        expected = sum(
            ((ours - theirs) ** 2).sum() / (2 * 3 * cells)
            for ours, theirs, cells in zip(inputs['student'], inputs['teacher'], (80, 20))
        )
        loss = self.build(region='all', loss_weight=1)(**{**inputs, 'priors': None})
        assert_near(loss, expected, 1e-6)

    def test_boxes_need_no_priors(self):
        inputs = {**self.inputs(), 'priors': None}
        assert self.build(region='boxes', strides=(16, 32)).terms(**inputs)['imitation'] > 0

    def test_distance_outside_the_masks_does_not_count(self):
        inputs = self.inputs()
        loss = self.build()
        expected = loss(**inputs)
        masks = loss.masks([(8, 10), (4, 5)], inputs['boxes'], inputs['valid'], inputs['priors'])
        inputs['student'] = [x + ~mask[:, None] * 100.0 for x, mask in zip(inputs['student'], masks)]
        assert_near(loss(**inputs), expected, 1e-6)

    @pytest.mark.parametrize(
        ('options', 'match'),
        [
            ({'reading': 'every'}, "'every'; it must be 'assigned' or"),
            ({'region': 'anchor'}, "'anchor'; it must be 'anchors' or"),
            ({'psi': 1.5}, 'psi.*1.5'),
            ({'region': 'boxes'}, 'stride'),
        ],
    )
    def test_wrong_option_is_refused(self, options, match):
        with pytest.raises(ValueError, match=match):
            FGILoss(**options)

    @pytest.mark.parametrize(
        ('changes', 'match'),
        [
            ({'priors': None}, 'needs the priors'),
            ({'priors': [torch.zeros(160, 2), torch.zeros(40, 2)]}, "2 numbers.*'boxes'"),
            ({'priors': [torch.zeros(159, 4), torch.zeros(40, 4)]}, '159 priors.*8 x 10'),
            ({'priors': [torch.zeros(160, 4)]}, '1 levels for 2 feature maps'),
            ({'teacher': [torch.zeros(3, 6, 8, 10)]}, '2 levels of the student and 1'),
            ({'teacher': [torch.zeros(3, 6, 8, 10), torch.zeros(3, 7, 4, 5)]}, r'\(3, 7, 4, 5\).*connector'),
        ],
    )
    def test_inputs_that_do_not_fit_are_refused(self, changes, match):
        with pytest.raises(ValueError, match=match):
            self.build()(**{**self.inputs(), **changes})

    def test_wrong_number_of_strides_is_refused(self):
        with pytest.raises(ValueError, match='1 strides for 2'):
            self.build(region='boxes', strides=(16,))(**self.inputs())

    def test_it_is_registered(self):
        assert MODELS.module_dict['FGILoss'] is FGILoss

    def test_ranks_share_the_normaliser(self):
        # Image 0 lights many cells and image 1 few: dividing on each rank by its own count would give another mean.
        expected = self.build()(**self.images(0, 2))
        ranks = terms_on_ranks(self.build(), [self.images(0, 1), self.images(1, 2)])
        assert_near((ranks[0]['imitation'] + ranks[1]['imitation']) / 2, expected, 1e-6)

    def images(self, start: int, stop: int) -> dict:
        """A part of the batch."""
        return self._map_batch(lambda x: x[start:stop])


class TestGoldenMasks:
    def test_options_of_the_module(self):
        data = read_golden('fgi_mask_official')
        valid = torch.arange(5)[None] < data['num_boxes'][:, None]
        inputs = {'boxes': data['gt_boxes'][..., :4], 'valid': valid, 'priors': [data['all_anchors']]}
        (mask,) = FGILoss(psi=0.3, plus_one_pixel=True).masks([(10, 14)], **inputs)
        assert torch.equal(mask, data['mask_psi0.3'])
        (mask,) = FGILoss(psi=0.3, plus_one_pixel=False).masks([(10, 14)], **inputs)
        assert not torch.equal(mask, data['mask_psi0.3'])
        data = read_golden('fgi_mask_fpn_variants')
        priors = [data[f'anchors.L{level}'] for level in range(5)]
        sizes = [tuple(level.shape[:2]) for level in priors]
        valid = torch.ones(1, 3, dtype=torch.bool)
        for reading, name in READINGS.items():
            masks = FGILoss(reading=reading).masks(sizes, data['gt0'][None], valid, priors)
            assert torch.equal(masks[0], data[f'{name}.psi0.5.L0'][:1])
