"""The formulas of FGI against the authors' numbers, and its regions against arithmetic done by hand."""

from __future__ import annotations

import pytest
import torch
from _helpers.golden import read_golden
from _helpers.memory import PeakMemory
from _helpers.plain_fgi import masks_by_loops
from _helpers.precision import assert_full_precision
from torch import Tensor, nn

from mmkd_plugin.functional import box_levels, box_regions, fgi, imitation_masks
from mmkd_plugin.utilities.host_syncs import HostSyncs

READINGS = {'assigned': 'assigned', 'all': 'allgt', 'global': 'globalmax'}


def grid_anchors(height: int, width: int, stride: int, shapes: tuple[tuple[float, float], ...]) -> Tensor:
    """Anchors of these widths and heights around the centre of every cell, ``(H, W, K, 4)``."""
    y, x = torch.meshgrid((torch.arange(height) + 0.5) * stride, (torch.arange(width) + 0.5) * stride, indexing='ij')
    half = torch.tensor(shapes) / 2
    centre = torch.stack([x, y], -1)[:, :, None]
    return torch.cat([centre - half, centre + half], -1)


def one_box(*box: float) -> tuple[Tensor, Tensor]:
    """A batch of one image with one box."""
    return torch.tensor(box).reshape(1, 1, 4), torch.tensor([[True]])


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
        # 111.99998 / 56 = 1.9999996, and 111.99992 / 56 = 1.9999986
        assert box_levels(torch.tensor([0.0, 0.0, 110.99998, 110.99998], dtype=torch.float64), 5) == 1
        assert box_levels(torch.tensor([0.0, 0.0, 110.99992, 110.99992], dtype=torch.float64), 5) == 0

    @pytest.mark.parametrize('box', [(1000, 10, 1223, 65), (10, 1000, 65, 1223)])
    def test_oblong(self, box):
        # sqrt(224 * 56) / 56 is 2.
        assert box_levels(torch.tensor(box), 5) == 1

    def test_box_turned_inside_out_belongs_to_the_finest_level(self):
        assert box_levels(torch.tensor([10.0, 10.0, 5.0, 20.0]), 5, base_size=0.5) == 0

    def test_half_precision(self):
        # An area of 401 x 401 pixels overflows float16.
        assert_full_precision(box_levels, torch.tensor([[0.0, 0, 400, 400]]), levels=5)

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
    @pytest.mark.parametrize(('x', 'y'), [(9, 9), (3, 9), (9, 3)])
    def test_box_without_extent_lights_nothing(self, plus_one_pixel, x, y):
        box, valid = one_box(x, y, x, y)
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
        assert memory.peak < 2**27
        assert [tuple(mask.shape) for mask in masks] == [(2, *size) for size in sizes]

    def test_iou_divides_by_the_union(self):
        # Anchors 4 x 4 and 4 x 1 in a box of 4 x 4 from 1: they share 3 x 3 and 3 x 1, of unions 23 and 17. Half of the
        # largest IoU is 9 / 46 = 0.1957, beyond 3 / 17 = 0.1765.
        anchors = torch.tensor([[0.0, 0, 4, 4], [0, 1, 4, 2]])
        box, valid = one_box(1, 1, 5, 5)
        for psi, lit in ((0.5, False), (0.45, True), (0.452, False)):
            (mask,) = imitation_masks([anchors], box, valid, [(1, 2)], psi=psi)
            assert mask.tolist() == [[[True, lit]]]

    def test_last_pixel_counts_into_all_widths_and_heights(self):
        # With the last pixel: 5 x 5 anchors and box share 4 x 4 of 34, the 5 x 2 anchor 4 x 2 of 27; the ratio of the
        # IoUs is 8 / 27 * 34 / 16 = 0.6296.
        anchors = torch.tensor([[0.0, 0, 4, 4], [0, 1, 4, 2]])
        box, valid = one_box(1, 1, 5, 5)
        for psi, lit in ((0.6295, True), (0.6298, False)):
            (mask,) = imitation_masks([anchors], box, valid, [(1, 2)], psi=psi, plus_one_pixel=True)
            assert mask.tolist() == [[[True, lit]]]

    @pytest.mark.parametrize('box', [(2, 2, 2, 6), (2, 2, 6, 2)])
    def test_box_of_one_column_or_row_counts_where_the_last_pixel_does(self, box):
        anchors = torch.tensor([[0.0, 0, 8, 8]])
        for plus_one_pixel in (True, False):
            (mask,) = imitation_masks([anchors], *one_box(*box), [(1, 1)], plus_one_pixel=plus_one_pixel)
            assert mask.item() is plus_one_pixel

    def test_anchors_beside_the_box_share_nothing(self):
        # To the left and right, above and below and across the corner: negative extents must not make an area.
        anchors = torch.tensor([[8.0, 8, 16, 16], [0, 8, 4, 16], [20, 8, 28, 16], [8, 0, 16, 4], [0, 0, 2, 2]])
        (mask,) = imitation_masks([anchors], *one_box(8, 8, 16, 16), [(1, 5)], psi=0.0)
        assert mask.tolist() == [[[True, False, False, False, False]]]

    def test_global_reading_has_one_maximum(self):
        # IoUs 1 on the first level, 1 / 4 on the second, which only its own maximum lights.
        priors = [torch.tensor([[0.0, 0, 8, 8]]), torch.tensor([[0.0, 0, 16, 16]])]
        box, valid = one_box(0, 0, 8, 8)
        for reading, lit in (('assigned', False), ('all', True), ('global', False)):
            masks = imitation_masks(priors, box, valid, [(1, 1)] * 2, reading=reading)
            assert [mask.item() for mask in masks] == [True, lit]

    def test_base_size_moves_boxes_between_levels(self):
        priors = [torch.tensor([[0.0, 0, 8, 8]]), torch.tensor([[0.0, 0, 16, 16]])]
        box, valid = one_box(0, 0, 7, 7)
        for base, expected in ((8.0, [True, False]), (4.0, [False, True])):
            masks = imitation_masks(priors, box, valid, [(1, 1)] * 2, base_size=base)
            assert [mask.item() for mask in masks] == expected

    def test_no_boxes_at_all(self):
        boxes, valid = torch.zeros(2, 0, 4), torch.zeros(2, 0, dtype=torch.bool)
        (mask,) = imitation_masks([torch.zeros(6, 4)], boxes, valid, [(2, 3)])
        assert mask.shape == (2, 2, 3)
        assert mask.dtype == torch.bool
        assert not mask.any()

    def test_half_precision_boxes(self):
        # Areas of more than 65504 pixels overflow float16.
        box, valid = one_box(0, 0, 400, 400)
        anchors = torch.tensor([[0.0, 0, 400, 300], [0, 0, 20, 20]])
        (mask,) = imitation_masks([anchors.half()], box.half(), valid, [(1, 2)], reading='all')
        assert mask.tolist() == [[[True, False]]]
        assert not mask.requires_grad

    def test_gradients_are_not_followed(self):
        box, valid = one_box(0.0, 0, 400, 400)
        seen = []
        anchors = torch.tensor([[0.0, 0, 400, 300]], requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(seen.append, lambda x: x):
            imitation_masks([anchors], box.requires_grad_(), valid, [(1, 1)])
            box_regions(box, valid, [(1, 1)], [8])
        assert seen == []

    @pytest.mark.parametrize(
        ('priors', 'options', 'message'),
        [
            (
                [(4, 4)],
                {},
                'FGI got priors of 1 levels for 2 feature maps; record the features of the levels on which the head '
                'places its anchors.',
            ),
            (
                [(2, 3, 1, 2), (1, 2)],
                {},
                'FGI compares anchors with boxes, but the priors hold 2 numbers each; a head that predicts from points '
                "has no anchors, choose region 'boxes' for it.",
            ),
            (
                [(7, 4), (1, 4)],
                {},
                'FGI got 7 priors for a feature map of 2 x 3 cells; record the feature on which the head places these '
                'priors.',
            ),
            (
                [(6, 4), (0, 4)],
                {},
                'FGI got 0 priors for a feature map of 1 x 1 cells; record the feature on which the head places these '
                'priors.',
            ),
            (
                [(6, 4), (1, 4)],
                {'reading': 'any'},
                "reading must be one of 'assigned', 'all', 'global', but it is 'any'.",
            ),
        ],
    )
    def test_priors_that_do_not_fit_are_refused(self, priors, options, message):
        box, valid = one_box(0, 0, 8, 8)
        with pytest.raises(ValueError) as error:
            imitation_masks([torch.zeros(size) for size in priors], box, valid, [(2, 3), (1, 1)], **options)
        assert str(error.value) == message

    @pytest.mark.parametrize('reading', READINGS)
    @pytest.mark.parametrize('plus_one_pixel', [True, False])
    @pytest.mark.parametrize('seed', range(4))
    def test_equal_to_a_loop_over_boxes_and_anchors(self, reading, plus_one_pixel, seed):
        random = torch.Generator().manual_seed(seed)
        sizes, anchors = [(3, 4), (2, 2)], []
        for height, width in sizes:
            corner = torch.rand(height * width * 3, 2, generator=random) * 40 - 10
            anchors.append(torch.cat([corner, corner + torch.rand(len(corner), 2, generator=random) * 30], -1))
        corner = torch.rand(3, 5, 2, generator=random) * 60 - 20
        boxes = torch.cat([corner, corner + torch.rand(3, 5, 2, generator=random) * 40 - 3], -1)
        # Images with all of their boxes, with some and with none.
        valid = torch.arange(5)[None] < torch.tensor([5, 2, 0])[:, None]
        options = dict(psi=0.4, reading=reading, plus_one_pixel=plus_one_pixel, base_size=14.0)
        expected = masks_by_loops(anchors, boxes, valid, sizes, **options)
        for limit in (1, 70, 2**22):
            masks = imitation_masks(anchors, boxes, valid, sizes, **options, max_overlaps=limit)
            assert all(torch.equal(mask, one) for mask, one in zip(masks, expected))

    @pytest.mark.parametrize(('boxes', 'anchors'), [(40, 2), (5, 16)])
    def test_memory_grows_with_neither_boxes_nor_the_anchors_of_a_cell(self, boxes, anchors):
        peaks = []
        for count, of_cell in ((5, 2), (boxes, anchors)):
            corner = torch.rand(1, count, 2, generator=torch.Generator().manual_seed(0))
            given = torch.cat([corner, corner + 1], -1), torch.ones(1, count, dtype=torch.bool)
            with PeakMemory() as memory:
                imitation_masks([torch.rand(900 * of_cell, 4)], *given, [(30, 30)], reading='all', max_overlaps=1800)
            peaks.append(memory.peak - 4 * 4 * 900 * of_cell)
        # What is left beside the anchors themselves is a copy of them.
        assert peaks[1] < 1.2 * peaks[0] + 4 * 4 * 900 * anchors


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

    def test_other_readings_light_every_level(self):
        box, valid = one_box(0, 0, 111, 111)
        for reading in ('all', 'global'):
            masks = box_regions(box, valid, [(16, 16), (8, 8)], [8, 16], reading=reading)
            assert [int(mask.sum()) for mask in masks] == [14 * 14, 49]

    def test_base_size_moves_boxes_between_levels(self):
        box, valid = one_box(0, 0, 111, 111)
        masks = box_regions(box, valid, [(16, 16), (8, 8)], [8, 16], base_size=112.0)
        assert [int(mask.sum()) for mask in masks] == [14 * 14, 0]

    def test_padding_rows_light_nothing(self):
        boxes, valid = torch.tensor([[[0.0, 0, 8, 8], [16, 16, 24, 24]]]), torch.tensor([[True, False]])
        for reading in READINGS:
            (mask,) = box_regions(boxes, valid, [(4, 4)], [8], reading=reading)
            assert mask.nonzero().tolist() == [[0, 0, 0]]

    def test_half_precision(self):
        # The edge between cells 2056 and 2057 is none of float16's numbers.
        boxes, valid = torch.tensor([[[2056.0, 0, 2058, 8]]]), torch.tensor([[True]])
        assert_full_precision(box_regions, boxes, valid, sizes=[(1, 2058)], strides=[1], reading='all')

    def test_any_of_several_boxes_lights_a_cell(self):
        boxes, valid = torch.tensor([[[0.0, 0, 8, 8], [16, 16, 24, 24]]]), torch.tensor([[True, True]])
        (mask,) = box_regions(boxes, valid, [(4, 4)], [8])
        assert mask.nonzero().tolist() == [[0, 0, 0], [0, 2, 2]]

    def test_no_boxes_at_all(self):
        (mask,) = box_regions(torch.zeros(2, 0, 4), torch.zeros(2, 0, dtype=torch.bool), [(2, 3)], [8])
        assert mask.shape == (2, 2, 3)
        assert not mask.any()

    @pytest.mark.parametrize(
        ('changes', 'message'),
        [
            ({'strides': [8]}, 'FGI got 1 strides for 2 feature maps; give one stride per level.'),
            ({'reading': 'any'}, "reading must be one of 'assigned', 'all', 'global', but it is 'any'."),
        ],
    )
    def test_arguments_that_do_not_fit_are_refused(self, changes, message):
        box, valid = one_box(0, 0, 8, 8)
        with pytest.raises(ValueError) as error:
            box_regions(box, valid, **{'sizes': [(4, 4), (2, 2)], 'strides': [8, 16], **changes})
        assert str(error.value) == message


class TestManyBoxes:
    def test_regions_in_parts(self, monkeypatch):
        corner = torch.rand(2, 9, 2, generator=torch.Generator().manual_seed(0)) * 60 - 10
        boxes, valid = torch.cat([corner, corner + 9], -1), torch.arange(9)[None] < torch.tensor([[9], [4]])
        expected = box_regions(boxes, valid, [(6, 7), (3, 4)], [8, 16], reading='all')
        assert all(mask.any() for mask in expected)
        monkeypatch.setattr(fgi, '_MAX_OVERLAPS', 200)
        for mask, one in zip(box_regions(boxes, valid, [(6, 7), (3, 4)], [8, 16], reading='all'), expected):
            assert torch.equal(mask, one)
