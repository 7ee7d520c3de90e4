"""The formulas of FGD against the authors' numbers, and its masks against arithmetic done by hand."""

from __future__ import annotations

import pytest
import torch
from _helpers.golden import assert_near, read_golden
from _helpers.memory import PeakMemory
from _helpers.plain_fgd import random_batch
from _helpers.precision import assert_full_precision
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mmkd_plugin.functional import box_masks, channel_attention, fgd_loss, spatial_attention
from mmkd_plugin.utilities.host_syncs import HostSyncs

LOG3 = 1.0986123
FILES = ('fgd_basic', 'fgd_align', 'fgd_init', 'fgd_empty_gt')


def ground_truth(data: dict[str, Tensor]) -> dict[str, Tensor]:
    """Padded boxes of a golden file."""
    boxes = pad_sequence(list(data['gt_bboxes'].split(data['num_boxes'].tolist())), batch_first=True)
    valid = torch.arange(boxes.shape[1])[None] < data['num_boxes'][:, None]
    return {'boxes': boxes, 'valid': valid, 'image_shapes': data['img_shape']}


def masks_of(*boxes: tuple[float, ...], image=(96, 128), size=(12, 16)) -> tuple[Tensor, Tensor]:
    """Masks of one image with these boxes; the stride is 8 by default."""
    tensor = torch.tensor(boxes).reshape(1, len(boxes), 4)
    masks = box_masks(tensor, torch.ones(1, len(boxes), dtype=torch.bool), torch.tensor([image]), size)
    return masks[0][0], masks[1][0]


def painted(mask: Tensor) -> tuple[int, int, int, int]:
    """First and last row, first and last column of the painted cells, which must form a rectangle."""
    rows, columns = mask.nonzero().unbind(1)
    top, bottom, left, right = (int(x) for x in (rows.min(), rows.max(), columns.min(), columns.max()))
    assert len(rows) == (bottom - top + 1) * (right - left + 1)
    return top, bottom, left, right


@pytest.mark.parametrize('file', FILES)
class TestGoldenParts:
    def test_masks_are_exact(self, file):
        data = read_golden(file)
        foreground, background = box_masks(**ground_truth(data), size=(12, 16), dtype=torch.float64)
        assert torch.equal(foreground, data['out_Mask_fg'])
        assert torch.equal(background, data['out_Mask_bg'])

    def test_attentions(self, file):
        data = read_golden(file)
        student, temperature = data.get('out_preds_S_aligned', data['preds_S']), data['hyp_temp'].item()
        for side, feature in (('s', student), ('t', data['preds_T'])):
            assert_near(spatial_attention(feature, temperature), data[f'out_S_attention_{side}'], 1e-9)
            assert_near(channel_attention(feature, temperature), data[f'out_C_attention_{side}'], 1e-9)


class TestBoxMasks:
    def test_edges_on_cell_borders_cover_one_more_cell(self):
        # 16 / 128 * 16 = 2 and 48 / 128 * 16 = 6 columns, 8 / 8 = 1 and 40 / 8 = 5 rows, ends included.
        foreground, background = masks_of((16, 8, 48, 40))
        assert painted(foreground) == (1, 5, 2, 6)
        assert foreground.max() == torch.tensor(1 / 25)
        assert background.max() == torch.tensor(1 / (12 * 16 - 25))

    def test_box_within_a_cell_covers_four(self):
        foreground, _ = masks_of((33, 17, 34, 18))
        assert painted(foreground) == (2, 3, 4, 5)
        assert foreground.max() == 1 / 4

    def test_right_and_bottom_border_cut_the_cells_but_not_their_count(self):
        # Columns 14 to 16 and rows 10 to 12, of which 16 and 12 lie beyond the map: 4 of 9 cells.
        foreground, _ = masks_of((112, 80, 128, 96))
        assert painted(foreground) == (10, 11, 14, 15)
        assert foreground.max() == torch.tensor(1.0) / 3 / 3

    @pytest.mark.parametrize(
        ('box', 'expected'),
        [
            ((16, 8, 16, 16), (1, 2, 2, 2)),
            ((16, 8, 32, 8), (1, 1, 2, 4)),
            ((0, 8, 0, 16), (1, 2, 0, 0)),
            ((8, 0, 16, 0), (0, 0, 1, 2)),
        ],
    )
    def test_box_without_extent_covers_the_cell_that_starts_there(self, box, expected):
        foreground, _ = masks_of(box)
        assert painted(foreground) == expected
        assert foreground.max() == 1 / foreground.gt(0).sum()

    @pytest.mark.parametrize('max_painted', [1, 2 * 12 * 16 * 3, 2 * 12 * 16 * 4])
    def test_boxes_in_parts(self, max_painted):
        corner = torch.rand(2, 7, 2, generator=torch.Generator().manual_seed(0)) * 90 - 20
        boxes, valid = torch.cat([corner, corner + 40], -1), torch.arange(7)[None] < torch.tensor([[7], [3]])
        shapes = torch.tensor([[96, 128], [90, 100]])
        expected = box_masks(boxes, valid, shapes, (12, 16))
        found = box_masks(boxes, valid, shapes, (12, 16), max_painted=max_painted)
        assert expected[0].any(2).any(1).all()
        assert all(torch.equal(one, other) for one, other in zip(found, expected))

    def test_memory_does_not_grow_with_the_boxes(self):
        peaks = []
        for count in (20, 400):
            given = torch.rand(1, count, 4), torch.ones(1, count, dtype=torch.bool), torch.tensor([[96, 128]])
            with PeakMemory() as memory:
                box_masks(*given, (48, 64), max_painted=20 * 48 * 64)
            peaks.append(memory.peak)
        # A box's rows and columns, and its numbers, are kept; a map for each would be 12 KiB.
        assert peaks[1] < peaks[0] + 380 * 1200

    def test_smaller_box_counts_where_two_overlap(self):
        # 36 cells with a box of 4 cells inside.
        foreground, _ = masks_of((8, 8, 48, 48), (17, 17, 18, 18))
        assert foreground[2:4, 2:4].eq(1 / 4).all()
        assert foreground.eq(torch.tensor(1.0) / 6 / 6).sum() == 36 - 4

    @pytest.mark.parametrize(
        ('box', 'expected', 'weight'),
        [
            # Left: columns 0 to 3 of a box from -20; top: rows 0 to 3; right and bottom: counted up to the box's end.
            ((-20, 8, 24, 16), (1, 2, 0, 3), 1 / 8),
            ((8, -20, 16, 24), (0, 3, 1, 2), 1 / 8),
            # One pixel within the image is a cell and the next.
            ((-20, 8, 1, 16), (1, 2, 0, 1), 1 / 4),
            ((8, -20, 16, 1), (0, 1, 1, 2), 1 / 4),
            ((112, 8, 160, 16), (1, 2, 14, 15), 1 / 2 / 7),
            ((8, 80, 16, 160), (10, 11, 1, 2), 1 / 11 / 2),
        ],
        ids=['left', 'top', 'just left', 'just top', 'right', 'bottom'],
    )
    def test_box_that_leaves_the_image(self, box, expected, weight):
        foreground, _ = masks_of(box)
        assert painted(foreground) == expected
        assert foreground.max() == torch.tensor(weight)

    @pytest.mark.parametrize(
        'box',
        [
            (-50, 8, -30, 16),
            (-30, -30, -3, -3),
            (40, 16, 20, 30),
            (8, -50, 16, -30),
            (-50, 8, -8, 16),
            (8, -50, 16, -8),
            # Within a cell of the border, and at the border itself.
            (-50, 8, -3, 16),
            (8, -50, 16, -3),
            (-50, 8, 0, 16),
            (8, -50, 16, 0),
            # Right of left and below of above, within a cell.
            (22, 8, 17, 16),
            (8, 22, 16, 17),
            (150, 8, 190, 16),
            (8, 110, 16, 150),
        ],
    )
    def test_box_beyond_the_image_paints_nothing(self, box):
        foreground, background = masks_of(box)
        assert foreground.eq(0).all()
        assert background.eq(torch.tensor(1 / 192)).all()

    def test_edges_are_divided_before_they_are_multiplied(self):
        # In float32, 120 / 800 * 100 is 15.000001 and 424 / 800 * 100 is 52.999996: the ceiling of the one is 16, the
        # floor of the other 52.
        foreground, _ = masks_of((424, 424, 600, 600), image=(800, 800), size=(100, 100))
        assert painted(foreground) == (52, 75, 52, 75)
        foreground, _ = masks_of((8, 8, 120, 120), image=(800, 800), size=(100, 100))
        assert painted(foreground) == (1, 16, 1, 16)

    def test_each_image_is_stretched_by_its_own_size(self):
        # Two images padded to 96 x 128. In the second, 48 x 64 before padding, the same box lies twice as far out.
        boxes = torch.tensor([[[16.0, 8.0, 30.0, 22.0]]] * 2)
        shapes, valid = torch.tensor([[96, 128], [48, 64]]), torch.ones(2, 1, dtype=torch.bool)
        foreground, _ = box_masks(boxes, valid, shapes, (12, 16))
        assert painted(foreground[0]) == (1, 3, 2, 4)
        assert painted(foreground[1]) == (2, 6, 4, 8)

    def test_image_without_boxes_is_all_background(self):
        boxes = torch.tensor([[[16.0, 8.0, 30.0, 22.0]]] * 2)
        valid, shapes = torch.tensor([[True], [False]]), torch.tensor([[96, 128]] * 2)
        foreground, background = box_masks(boxes, valid, shapes, (12, 16))
        assert foreground[0].max() > 0
        assert foreground[1].eq(0).all()
        assert background[1].eq(torch.tensor(1 / 192)).all()

    def test_image_full_of_boxes_has_no_background(self):
        foreground, background = masks_of((0, 0, 128, 96))
        assert foreground.eq(torch.tensor(1.0) / 13 / 17).all()
        assert background.eq(0).all()

    def test_one_box_per_cell(self):
        # A box around each centre covers its own cell and the next in both directions: everywhere 1 / 4.
        y, x = torch.meshgrid(torch.arange(12) * 8.0 + 4, torch.arange(16) * 8.0 + 4, indexing='ij')
        boxes = torch.stack([x - 1, y - 1, x + 1, y + 1], -1).reshape(1, -1, 4)
        foreground, background = box_masks(
            boxes, torch.ones(1, 192, dtype=torch.bool), torch.tensor([[96, 128]]), (12, 16)
        )
        assert foreground.eq(1 / 4).all()
        assert background.eq(0).all()

    def test_no_boxes_at_all(self):
        foreground, background = box_masks(
            torch.zeros(2, 0, 4), torch.zeros(2, 0, dtype=torch.bool), torch.tensor([[96, 128]] * 2), (12, 16)
        )
        assert foreground.shape == background.shape == (2, 12, 16)
        assert foreground.eq(0).all()
        assert background.eq(torch.tensor(1 / 192)).all()

    def test_they_have_no_gradient_and_the_precision_asked_for(self):
        boxes = torch.tensor([[[16.0, 8.0, 30.0, 22.0]]], requires_grad=True)
        arguments = (torch.tensor([[True]]), torch.tensor([[96, 128]]), (12, 16))
        for mask in box_masks(boxes, *arguments):
            assert mask.dtype == torch.float32
            assert not mask.requires_grad
        for mask in (*box_masks(boxes, *arguments, torch.float64), *box_masks(boxes.double(), *arguments)):
            assert mask.dtype in (torch.float64, torch.float32)
        assert [x.dtype for x in box_masks(boxes, *arguments, torch.float64)] == [torch.float64] * 2
        none = (torch.zeros(1, 0, dtype=torch.bool), *arguments[1:])
        assert [x.dtype for x in box_masks(boxes[:, :0], *none, torch.float64)] == [torch.float64] * 2

    def test_half_precision_boxes(self):
        # 120 / 800 * 100 is 15.000001 in float32 and 15 in float16.
        boxes, valid = torch.tensor([[[8.0, 8, 120, 120]]]), torch.tensor([[True]])
        assert_full_precision(box_masks, boxes, valid, torch.tensor([[800, 800]]), size=(100, 100))


class TestFGDTermsByHand:
    def test_one_channel_two_cells(self):
        # Attention of an even teacher is 1 everywhere. The box covers column 0 alone (its bottom and right edge lie at
        # 0, so two rows are counted): foreground 1/2 * 3^2, background 1 * 5^2, relation 3^2 + 5^2.
        student = torch.tensor([[[[3.0, 5.0]]]])
        terms = fgd_loss(
            student,
            torch.zeros(1, 1, 1, 2),
            torch.tensor([[[0.0, 0.0, 0.0, 4.0]]]),
            torch.tensor([[True]]),
            torch.tensor([[4, 8]]),
            temperature=1.0,
        )
        assert terms.foreground == 4.5
        assert terms.background == 25
        assert terms.relation == 34
        # Softmax of (3, 5) is 1 / (1 + e^2) = 0.119203 and 0.880797, times 2 cells, against 1 and 1; channels agree.
        assert_near(terms.attention, torch.tensor(2 * (1 - 2 * 0.11920292)), 1e-6)

    def test_terms_not_asked_for_are_none(self):
        feature, boxes = torch.ones(1, 1, 2, 2), torch.zeros(1, 0, 4)
        valid, shapes = torch.zeros(1, 0, dtype=torch.bool), torch.tensor([[16, 16]])
        terms = fgd_loss(feature, feature, boxes, valid, shapes, terms=('background',))
        assert terms.background == 0
        assert terms.foreground is terms.attention is terms.relation is None

    def test_attentions_are_added(self):
        # Of the teacher, two channels and two cells that are 0. The student's channels have the means 0 and log 3 / 2,
        # as its cells do: at T = 0.5 odds of 3 twice, each 1/2 and 3/2 against 1 and 1, which differ by 1.
        student = torch.tensor([[[[0.0, 0.0]], [[0.0, LOG3]]]])
        boxes, valid = torch.zeros(1, 0, 4), torch.zeros(1, 0, dtype=torch.bool)
        arguments = (boxes, valid, torch.tensor([[4, 8]]))
        assert_near(fgd_loss(student, torch.zeros(1, 2, 1, 2), *arguments).attention, torch.tensor(2.0), 1e-6)

    def test_relation_compares_what_each_context_makes(self):
        # Student and what is added, 3 + 2 and 1 + 2, against 5 + 7 and 2 + 7: (-7)^2 + (-6)^2.
        student, teacher = torch.tensor([[[[3.0, 1.0]]]]), torch.tensor([[[[5.0, 2.0]]]])
        boxes, valid = torch.zeros(1, 0, 4), torch.zeros(1, 0, dtype=torch.bool)
        terms = fgd_loss(
            student,
            teacher,
            boxes,
            valid,
            torch.tensor([[4, 8]]),
            lambda x: x.mean((2, 3), keepdim=True),
            lambda x: x.sum((2, 3), keepdim=True),
            terms=('relation',),
        )
        assert terms.relation == 85

    def test_term_alone_equals_that_among_all(self):
        arguments = random_batch()
        everything = fgd_loss(*arguments)
        for name in everything._fields:
            alone = fgd_loss(*arguments, terms=(name,))
            assert torch.equal(getattr(alone, name), getattr(everything, name))
            assert [item is None for item in alone] == [field != name for field in alone._fields]

    def test_a_batch_of_two_equal_images_has_the_terms_of_one(self):
        student, teacher, boxes, valid, shapes, *contexts = random_batch()
        one = fgd_loss(student[:1], teacher[:1], boxes[:1], valid[:1], shapes[:1], *contexts)
        two = fgd_loss(*[item[:1].repeat(2, *[1] * (item.ndim - 1)) for item in random_batch()[:5]], *contexts)
        for ours, expected in zip(two, one):
            assert_near(ours, expected, 1e-6)

    def test_temperature_is_that_of_both_attentions(self):
        # Means 0 and 1 over one channel, at T = 1 / log 3 and two cells: teacher's attention 1/2 and 3/2.
        teacher = torch.tensor([[[[0.0, 1.0]]]])
        arguments = (torch.tensor([[True]]), torch.tensor([[4, 8]]))
        box = torch.tensor([[[0.0, 0.0, 1.0, 3.0]]])
        terms = fgd_loss(torch.zeros(1, 1, 1, 2), teacher, box, *arguments, temperature=0.91023923)
        # Student's attention 1 and 1; the box covers 2 x 2 cells, two of them on the map.
        assert_near(terms.attention, torch.tensor(1.0), 1e-6)
        assert_near(terms.foreground, torch.tensor(3 / 2 / 4), 1e-6)
        # T = 0.5 is the default: softmax of (0, 2) is 0.11920292 and 0.88079708.
        terms = fgd_loss(torch.zeros(1, 1, 1, 2), teacher, box, *arguments)
        assert_near(terms.attention, torch.tensor(2 * (1 - 2 * 0.11920292)), 1e-6)
        assert_near(terms.foreground, torch.tensor(2 * 0.88079708 / 4), 1e-6)

    def test_the_teacher_gets_no_gradient(self):
        student, teacher, *others = random_batch()
        student.requires_grad_(), teacher.requires_grad_()
        sum(fgd_loss(student, teacher, *others)).backward()
        assert student.grad.any()
        assert teacher.grad is None

    def test_half_precision(self):
        assert_full_precision(fgd_loss, *random_batch())

    def test_different_shapes_are_refused(self):
        student, teacher, *others = random_batch()
        with pytest.raises(ValueError, match=r'student gives \(2, 3, 4, 5\) and the teacher \(2, 3, 4, 4\)'):
            fgd_loss(student, teacher[..., 1:], *others)

    def test_three_hundred_boxes_without_waiting(self):
        corner, extent = torch.rand(2, 2, 300, 2, generator=torch.Generator().manual_seed(2))
        boxes = torch.cat([corner * 700, corner * 700 + extent * 300], -1)
        valid, shapes = torch.ones(2, 300, dtype=torch.bool), torch.tensor([[800, 1344], [750, 1333]])
        with HostSyncs() as syncs:
            box_masks(boxes, valid, shapes, (100, 168))
        assert syncs.calls == []


class TestAttention:
    def test_spatial_by_hand(self):
        # Means of |F| over two channels: 0 and log 3 / 2; at T = 0.5, the default, odds of 3: 2 * (1/4, 3/4).
        feature = torch.tensor([[[[0.0, -LOG3]], [[0.0, 0.0]]]])
        assert_near(spatial_attention(feature), torch.tensor([[[0.5, 1.5]]]), 1e-6)
        # At T = 0.25 odds of 9.
        assert_near(spatial_attention(feature, 0.25), torch.tensor([[[0.2, 1.8]]]), 1e-6)

    def test_spatial_sums_to_the_cells_of_each_image(self):
        attention = spatial_attention(torch.randn(2, 3, 4, 5))
        assert attention.shape == (2, 4, 5)
        assert_near(attention.sum((1, 2)), torch.full((2,), 20.0), 1e-5)

    def test_channel_by_hand(self):
        # Means of |F| over the cells: 0 and log 3 / 2; at T = 0.5, the default, odds of 3: 2 * (1/4, 3/4).
        feature = torch.tensor([[[[0.0, 0.0]], [[0.0, -LOG3]]]])
        assert_near(channel_attention(feature), torch.tensor([[0.5, 1.5]]), 1e-6)
        assert_near(channel_attention(feature, 0.25), torch.tensor([[0.2, 1.8]]), 1e-6)
        assert_near(channel_attention(feature.transpose(2, 3)), torch.tensor([[0.5, 1.5]]), 1e-6)

    @pytest.mark.parametrize('function', [spatial_attention, channel_attention])
    def test_half_precision(self, function):
        assert_full_precision(function, torch.randn(2, 3, 4, 5) * 30)
