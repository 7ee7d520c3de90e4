"""FGD against the authors' numbers, and its masks against arithmetic done by hand."""

from __future__ import annotations

import pytest
import torch
from _helpers.host_sync import HostSyncs
from _helpers.loss_tester import Golden, LossTester, assert_near, read_golden, total
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from mmkd_plugin.functional import box_masks, channel_attention, fgd_loss, spatial_attention
from mmkd_plugin.methods import FGDLoss
from mmkd_plugin.registry import MODELS

FILES = ('fgd_basic', 'fgd_align', 'fgd_init', 'fgd_empty_gt')
TERMS = {'foreground': 'fg', 'background': 'bg', 'attention': 'mask', 'relation': 'rela'}
WEIGHTS = {'foreground': 'alpha', 'background': 'beta', 'attention': 'gamma', 'relation': 'lambda'}


class Aligned(nn.Module):
    """FGD behind the authors' 1x1 convolution."""

    def __init__(self, student_channels: int, channels: int, **options: float) -> None:
        super().__init__()
        self.align = nn.Conv2d(student_channels, channels, 1) if student_channels != channels else nn.Identity()
        self.loss = FGDLoss(channels, **options)

    def forward(self, student: Tensor, **inputs: Tensor) -> dict[str, Tensor]:
        return self.loss(self.align(student), **inputs)


def parameter_names() -> dict[str, str]:
    """Names of our parameters, by those of the authors."""
    names = {'align': 'align'}
    for side, context in (('s', 'student'), ('t', 'teacher')):
        names[f'conv_mask_{side}'] = f'loss.{context}_context.attention'
        for layer in (0, 1, 3):
            names[f'channel_add_conv_{side}.{layer}'] = f'loss.{context}_context.transform.{layer}'
    return {f'{theirs}.{kind}': f'{ours}.{kind}' for theirs, ours in names.items() for kind in ('weight', 'bias')}


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
            assert_near(total(case.loss(**case.inputs)), read_golden(file)['out_loss'], 1e-6, name=file)

    def test_no_box_in_the_batch(self):
        inputs = self.inputs()
        inputs['valid'] = torch.zeros_like(inputs['valid'])
        expected = self._loss()(**inputs)
        inputs['boxes'], inputs['valid'] = torch.zeros(3, 0, 4), torch.zeros(3, 0, dtype=torch.bool)
        terms = self._loss()(**inputs)
        assert terms['foreground'] == 0
        for name, term in terms.items():
            assert_near(term, expected[name], 0, name=name)

    def test_padding_rows_do_not_matter(self):
        inputs = self.inputs()
        expected = self._loss()(**inputs)
        inputs['boxes'] = torch.cat([inputs['boxes'], torch.full((3, 4, 4), float('nan'))], 1)
        inputs['valid'] = torch.cat([inputs['valid'], torch.zeros(3, 4, dtype=torch.bool)], 1)
        assert_near(total(self._loss()(**inputs)), total(expected), 0)

    def test_relation_starts_as_the_squared_difference(self):
        inputs = self.inputs()
        expected = ((inputs['student'] - inputs['teacher']) ** 2).sum() / 3
        assert_near(FGDLoss(6, relation_weight=1)(**inputs)['relation'], expected, 1e-6)

    def test_different_sizes_are_refused(self):
        inputs = self.inputs()
        inputs['teacher'] = inputs['teacher'][..., :-1]
        with pytest.raises(ValueError, match=r'\(3, 6, 8, 10\).*\(3, 6, 8, 9\).*connector'):
            self._loss()(**inputs)

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
            value = total(loss(student, teacher, boxes, valid, shapes))
        assert syncs.calls == []
        assert torch.isfinite(value)


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
            ((112, 8, 160, 16), (1, 2, 14, 15), 1 / 2 / 7),
            ((8, 80, 16, 160), (10, 11, 1, 2), 1 / 11 / 2),
        ],
        ids=['left', 'top', 'right', 'bottom'],
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
        assert foreground.eq(0).all()
        assert background.eq(torch.tensor(1 / 192)).all()


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
            nn.Identity(),
            nn.Identity(),
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
        terms = fgd_loss(feature, feature, boxes, valid, shapes, nn.Identity(), nn.Identity(), terms=('background',))
        assert terms.background == 0
        assert terms.foreground is terms.attention is terms.relation is None
