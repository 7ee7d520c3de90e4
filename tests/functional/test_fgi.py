"""FGI against the authors' numbers, and its regions against arithmetic done by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from _helpers.host_sync import HostSyncs
from _helpers.loss_tester import Golden, LossTester, assert_near, read_golden
from _helpers.memory import PeakMemory
from _helpers.ranks import terms_on_ranks
from torch import Tensor, nn

from mmkd_plugin.functional import box_levels, box_regions, fgi_loss, imitation_masks
from mmkd_plugin.methods import FGILoss
from mmkd_plugin.registry import MODELS

READINGS = {'assigned': 'assigned', 'all': 'allgt', 'global': 'globalmax'}


class Adapted(nn.Module):
    """FGI on one level behind the authors' 3x3 convolution."""

    def __init__(self, relu: bool, **options: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, 6, 3, padding=1)
        self.relu = nn.ReLU() if relu else nn.Identity()
        self.loss = FGILoss(reading='all', plus_one_pixel=True, **options)

    def forward(self, student: list[Tensor], **inputs) -> dict[str, Tensor]:
        return self.loss([self.relu(self.conv(student[0]))], **inputs)


def grid_anchors(height: int, width: int, stride: int, shapes: tuple[tuple[float, float], ...]) -> Tensor:
    """Anchors of these widths and heights around the centre of every cell, ``(H, W, K, 4)``."""
    y, x = torch.meshgrid((torch.arange(height) + 0.5) * stride, (torch.arange(width) + 0.5) * stride, indexing='ij')
    half = torch.tensor(shapes) / 2
    centre = torch.stack([x, y], -1)[:, :, None]
    return torch.cat([centre - half, centre + half], -1)


def one_box(*box: float) -> tuple[Tensor, Tensor]:
    """A batch of one image with one box."""
    return torch.tensor(box).reshape(1, 1, 4), torch.tensor([[True]])


class TestFGILoss(LossTester):
    golden_names = ('relu', 'no_relu')
    shared = ('priors',)
    term_weights = {'imitation': 'imitation_weight'}

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
        loss = Adapted(relu, imitation_weight=0.01 if relu else 1).double()
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
        loss = self.build(region=region, strides=(16, 32))(**inputs)['imitation']
        loss.backward()
        assert loss == 0
        assert inputs['student'][0].grad.eq(0).all()

    @pytest.mark.parametrize('reading', READINGS)
    def test_every_reading_is_finite_without_waiting(self, reading):
        inputs = self.inputs()
        loss = self.build(reading=reading)
        with HostSyncs() as syncs:
            value = loss(**inputs)['imitation']
        assert syncs.calls == []
        assert value > 0

    def test_whole_map(self):
        # Every cell of both levels: half the squared difference per cell and image, levels added.
        inputs = self.inputs()
        expected = sum(
            ((ours - theirs) ** 2).sum() / (2 * 3 * cells)
            for ours, theirs, cells in zip(inputs['student'], inputs['teacher'], (80, 20))
        )
        loss = self.build(region='all', imitation_weight=1)(**{**inputs, 'priors': None})
        assert_near(loss['imitation'], expected, 1e-6)

    def test_boxes_need_no_priors(self):
        inputs = {**self.inputs(), 'priors': None}
        assert self.build(region='boxes', strides=(16, 32))(**inputs)['imitation'] > 0

    def test_distance_outside_the_masks_does_not_count(self):
        inputs = self.inputs()
        loss = self.build()
        expected = loss(**inputs)['imitation']
        masks = loss.masks([(8, 10), (4, 5)], inputs['boxes'], inputs['valid'], inputs['priors'])
        inputs['student'] = [x + ~mask[:, None] * 100.0 for x, mask in zip(inputs['student'], masks)]
        assert_near(loss(**inputs)['imitation'], expected, 1e-6)

    @pytest.mark.parametrize(
        ('options', 'match'),
        [
            ({'reading': 'every'}, "'assigned'.*'every'"),
            ({'region': 'anchor'}, "'anchors'.*'anchor'"),
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
        expected = self.build()(**self.images(0, 2))['imitation']
        ranks = terms_on_ranks(self.build(), [self.images(0, 1), self.images(1, 2)])
        assert_near((ranks[0]['imitation'] + ranks[1]['imitation']) / 2, expected, 1e-6)

    def images(self, start: int, stop: int) -> dict:
        """A part of the batch."""
        return self._map_batch(lambda x: x[start:stop])


class TestGoldenMasks:
    @pytest.mark.parametrize('psi', ['0', '0.3', '0.5', '0.75', '1'])
    @pytest.mark.parametrize('reading', READINGS)
    def test_single_map(self, psi, reading):
        data = read_golden('fgi_mask_official')
        valid = torch.arange(5)[None] < data['num_boxes'][:, None]
        (mask,) = imitation_masks(
            [data['all_anchors']],
            data['gt_boxes'][..., :4],
            valid,
            [(10, 14)],
            psi=float(psi),
            reading=reading,
            plus_one_pixel=True,
        )
        assert torch.equal(mask, data[f'mask_psi{psi}'])

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

    @pytest.mark.parametrize('psi', ['0', '0.5', '1'])
    @pytest.mark.parametrize('reading', READINGS)
    @pytest.mark.parametrize('max_overlaps', [2**23, 997], ids=['at once', 'in parts'])
    def test_pyramid(self, psi, reading, max_overlaps):
        data = read_golden('fgi_mask_fpn_variants')
        boxes = nn.utils.rnn.pad_sequence([data['gt0'], data['gt1']], batch_first=True)
        valid = torch.tensor([[True, True, True], [True, True, False]])
        priors = [data[f'anchors.L{level}'] for level in range(5)]
        sizes = [tuple(level.shape[:2]) for level in priors]
        masks = imitation_masks(priors, boxes, valid, sizes, psi=float(psi), reading=reading, max_overlaps=max_overlaps)
        for level, mask in enumerate(masks):
            assert torch.equal(mask, data[f'{READINGS[reading]}.psi{psi}.L{level}'])

    def test_levels_of_boxes(self):
        data = read_golden('fgi_mask_fpn_variants')
        for image in (0, 1):
            assert torch.equal(box_levels(data[f'gt{image}'], 5), data[f'gt{image}_level'])


class TestBoxLevels:
    @pytest.mark.parametrize(
        # sqrt((w + 1)(h + 1)) / 56 is 0.5, just below 2, 2, 4 and 64: floor of log2, at least 0 and at most 4.
        ('side', 'level'),
        [(27, 0), (110.9, 0), (111, 1), (223, 2), (3583, 4)],
    )
    def test_squares(self, side, level):
        assert box_levels(torch.tensor([10.0, 10.0, 10.0 + side, 10.0 + side]), 5) == level

    def test_box_that_rounding_left_below_the_border_is_above_it(self):
        # 111.99998 / 56 = 1.9999996
        assert box_levels(torch.tensor([0.0, 0.0, 110.99998, 110.99998], dtype=torch.float64), 5) == 1

    def test_larger_base_moves_boxes_down(self):
        assert box_levels(torch.tensor([0.0, 0.0, 223.0, 223.0]), 5, base_size=112.0) == 1


class TestImitationMasks:
    def test_two_overlaps_above_half_of_the_largest(self):
        # Three 8 x 8 anchors in a row, a box of 11 x 8 from 2: it shares 6, 5 and 0 columns with them, so the IoUs are
        # 6 / 13, 5 / 14 and 0. Half of the largest is 3 / 13 = 0.231; 5 / 14 = 0.357 exceeds it.
        anchors = grid_anchors(1, 3, 8, ((8.0, 8.0),))
        box, valid = one_box(2, 0, 13, 8)
        (mask,) = imitation_masks([anchors], box, valid, [(1, 3)])
        assert mask.tolist() == [[[True, True, False]]]
        # 0.8 * 6 / 13 = 0.369 exceeds 0.357.
        (mask,) = imitation_masks([anchors], box, valid, [(1, 3)], psi=0.8)
        assert mask.tolist() == [[[True, False, False]]]

    def test_overlap_equal_to_the_threshold_is_dark(self):
        # A box of 12 x 8 over the anchors at 0 and 8: IoUs 8 / 12 and 4 / 16. With psi 3 / 8 the threshold is 1 / 4.
        anchors = grid_anchors(1, 2, 8, ((8.0, 8.0),)).double()
        box, valid = one_box(0, 0, 12, 8)
        for psi, lit in ((0.3749, True), (0.3751, False)):
            (mask,) = imitation_masks([anchors], box.double(), valid, [(1, 2)], psi=psi)
            assert mask.tolist() == [[[True, lit]]]
        anchors = torch.tensor([[0.0, 0, 8, 8], [0, 0, 4, 8]])
        (mask,) = imitation_masks([anchors], torch.tensor([[[0.0, 0, 8, 8]]]), valid, [(1, 2)], psi=0.5)
        assert mask.tolist() == [[[True, False]]]

    def test_one_of_the_anchors_of_a_cell_is_enough(self):
        anchors = grid_anchors(2, 2, 8, ((2.0, 2.0), (8.0, 8.0)))
        box, valid = one_box(0, 0, 8, 8)
        (mask,) = imitation_masks([anchors], box, valid, [(2, 2)])
        assert mask.tolist() == [[[True, False], [False, False]]]

    def test_box_lights_only_its_level(self):
        # 111 pixels and one more make twice 56: level 1.
        priors = [grid_anchors(16, 16, 8, ((100.0, 100.0),)), grid_anchors(8, 8, 16, ((100.0, 100.0),))]
        box, valid = one_box(0, 0, 111, 111)
        assigned = imitation_masks(priors, box, valid, [(16, 16), (8, 8)])
        everywhere = imitation_masks(priors, box, valid, [(16, 16), (8, 8)], reading='all')
        assert [bool(mask.any()) for mask in assigned] == [False, True]
        assert [bool(mask.any()) for mask in everywhere] == [True, True]

    def test_anchors_in_a_row_or_on_a_grid_are_the_same(self):
        anchors = grid_anchors(4, 6, 8, ((8.0, 16.0), (16.0, 8.0)))
        box, valid = one_box(3, 5, 30, 22)
        grid, row = (imitation_masks([x], box, valid, [(4, 6)])[0] for x in (anchors, anchors.reshape(-1, 4)))
        assert torch.equal(grid, row)

    @pytest.mark.parametrize('plus_one_pixel', [True, False])
    def test_box_without_extent_lights_nothing(self, plus_one_pixel):
        box, valid = one_box(9, 9, 9, 9)
        anchors = grid_anchors(4, 4, 8, ((8.0, 8.0),))
        (mask,) = imitation_masks([anchors], box, valid, [(4, 4)], plus_one_pixel=plus_one_pixel)
        assert not mask.any()

    def test_padding_rows_light_nothing(self):
        anchors = grid_anchors(4, 4, 8, ((8.0, 8.0),))
        boxes, valid = torch.tensor([[[0.0, 0, 8, 8], [16, 16, 24, 24]]]), torch.tensor([[True, False]])
        (mask,) = imitation_masks([anchors], boxes, valid, [(4, 4)])
        assert mask.nonzero().tolist() == [[0, 0, 0]]

    def test_memory_is_bounded(self):
        # 100 boxes in each of two images of 800 x 1344, 9 anchors a cell at strides 8 to 128: the IoUs alone would
        # take 162 MB a tensor. Sixteen images would take eight times that.
        sizes = [(100, 168), (50, 84), (25, 42), (13, 21), (7, 11)]
        shapes = tuple((side * ratio, side / ratio) for side in (4.0, 5.0, 6.3) for ratio in (0.7, 1.0, 1.4))
        priors = [
            grid_anchors(*size, stride, tuple((w * stride, h * stride) for w, h in shapes))
            for size, stride in zip(sizes, (8, 16, 32, 64, 128))
        ]
        corner = torch.rand(2, 100, 2, generator=torch.Generator().manual_seed(0)) * 600
        boxes = torch.cat([corner, corner + 90], -1)
        with HostSyncs() as syncs, PeakMemory() as memory:
            masks = imitation_masks(priors, boxes, torch.ones(2, 100, dtype=torch.bool), sizes, reading='all')
        assert syncs.calls == []
        assert memory.peak < 2**28
        assert [tuple(mask.shape) for mask in masks] == [(2, *size) for size in sizes]


class TestBoxRegions:
    @pytest.mark.parametrize(
        # Stride 8: 9 to 17 touches cells 1 and 2, 8 to 16 cell 1 exactly.
        ('box', 'cells'),
        [((9, 8, 17, 16), [[0, 1, 1], [0, 1, 2]]), ((8, 9, 16, 17), [[0, 1, 1], [0, 2, 1]])],
    )
    def test_cells_that_a_box_touches(self, box, cells):
        (mask,) = box_regions(*one_box(*box), [(4, 4)], [8])
        assert mask.nonzero().tolist() == cells

    def test_assigned_level_alone(self):
        box, valid = one_box(0, 0, 111, 111)
        masks = box_regions(box, valid, [(16, 16), (8, 8)], [8, 16])
        assert [int(mask.sum()) for mask in masks] == [0, 49]
        masks = box_regions(box, valid, [(16, 16), (8, 8)], [8, 16], reading='all')
        assert [int(mask.sum()) for mask in masks] == [14 * 14, 49]


class TestFGITermByHand:
    def test_two_levels(self):
        # Level 0: two lit cells, 2 channels of difference 3: 2 * 2 * 9 / (2 * 2) = 9. Level 1: nothing lit, 0.
        student = [torch.full((1, 2, 1, 3), 4.0), torch.ones(1, 2, 1, 1)]
        teacher = [torch.ones(1, 2, 1, 3), torch.zeros(1, 2, 1, 1)]
        masks = [torch.tensor([[[True, False, True]]]), torch.tensor([[[False]]])]
        assert fgi_loss(student, teacher, masks) == 9
