"""Pixel-wise and pair-wise formulas against the authors' numbers and arithmetic done by hand."""

from __future__ import annotations

import math

import pytest
import torch
from _helpers.golden import assert_near, read_golden
from _helpers.memory import PeakMemory
from _helpers.precision import assert_full_precision
from torch import Tensor

from mmkd_plugin.functional import node_similarity, pair_wise_loss, pixel_wise_loss

POOLED = ('a_9x9_s0.5', 'b_8x11_s0.5', 'c_9x12_s0.25', 'd_33x33_s0.5')
GROUPS = (*POOLED, 'e_nopool')
LOG2, LOG3 = math.log(2), math.log(3)


class TestPixelWise:
    @pytest.mark.parametrize(
        ('options', 'expected', 'gradient', 'share'),
        [
            ({'reduction': 'batch_sum'}, 'out_pixelwise_ce', 'grad_S', 1),
            ({'divergence': 'kl', 'reduction': 'batch_sum'}, 'out_kl_same_normalisation', 'grad_S', 1),
            ({'divergence': 'kl'}, 'out_kl_per_pixel_mean', None, 1),
            # Three images, so the mean over pixels is a third of the released sum.
            ({}, 'out_pixelwise_ce', 'grad_S', 3),
            (
                {'divergence': 'kl', 'reduction': 'element_mean'},
                'out_torchdistiller_kd_elementwise_mean',
                'grad_S_torchdistiller',
                1,
            ),
        ],
    )
    def test_golden(self, options, expected, gradient, share):
        data = read_golden('structured_seg_pixelwise')
        student = data['logits_S'].requires_grad_()
        loss = pixel_wise_loss(student, data['logits_T'], **options)
        loss.backward()
        assert_near(loss, data[expected] / share, 1e-9)
        if gradient is not None:
            assert_near(student.grad, data[gradient] / share, 1e-9)

    def test_by_hand(self):
        # The teacher says 3/4 and 1/4, the student 1/2 and 1/2, at all 2 x 1 x 3 pixels.
        teacher = torch.tensor([LOG3, 0.0]).view(1, 2, 1, 1).expand(2, 2, 1, 3)
        student = torch.zeros(2, 2, 1, 3)
        entropy = 2 * LOG2 - 0.75 * LOG3
        for divergence, pixel in (('cross_entropy', LOG2), ('kl', LOG2 - entropy)):
            for reduction, factor in (('pixel_mean', 1), ('batch_sum', 2), ('element_mean', 0.5)):
                loss = pixel_wise_loss(student, teacher, divergence=divergence, reduction=reduction)
                assert_near(loss, torch.tensor(pixel * factor), 1e-6)

    def test_temperature_by_hand(self):
        # At T = log 3 / log 2 the odds of 3 become 2: KL of (2/3, 1/3) to (1/2, 1/2) is 5/3 log 2 - log 3.
        teacher = torch.tensor([LOG3, 0.0]).view(1, 2, 1, 1)
        loss = pixel_wise_loss(torch.zeros(1, 2, 1, 1), teacher, divergence='kl', temperature=LOG3 / LOG2)
        assert_near(loss, torch.tensor(5 / 3 * LOG2 - LOG3), 1e-5)
        # At the default of 1 it is 3/4 log 3 - log 2.
        loss = pixel_wise_loss(torch.zeros(1, 2, 1, 1), teacher, divergence='kl')
        assert_near(loss, torch.tensor(3 / 4 * LOG3 - LOG2), 1e-5)

    def test_half_precision(self):
        assert_full_precision(pixel_wise_loss, *torch.randn(2, 1, 3, 40, 40) * 100)

    def test_unknown_reduction_is_refused(self):
        with pytest.raises(ValueError) as error:
            pixel_wise_loss(torch.zeros(1, 2, 1, 1), torch.zeros(1, 2, 1, 1), reduction='mean')
        assert str(error.value) == (
            "reduction must be one of 'pixel_mean', 'batch_sum', 'element_mean', but it is 'mean'."
        )


def maps(*sizes: tuple[int, ...]) -> list[Tensor]:
    """Random maps."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(*size, generator=generator) for size in sizes]


class TestPairWise:
    @pytest.mark.parametrize('group', GROUPS)
    def test_golden(self, group):
        data = read_golden('structured_seg_pairwise')
        options = {'scale': data[f'{group}.pool_scale'].item()} if group in POOLED else {'patch': (1, 1)}
        student = data[f'{group}.feat_S'].requires_grad_()
        loss = pair_wise_loss(student, data[f'{group}.feat_T'], **options)
        loss.backward()
        assert_near(loss, data[f'{group}.out_loss'], 1e-5)
        assert_near(student.grad, data[f'{group}.grad_S'], 1e-5)

    @pytest.mark.parametrize('group', POOLED)
    def test_gradient_through_the_norm_is_another(self, group):
        data = read_golden('structured_seg_pairwise')
        student = data[f'{group}.feat_S'].requires_grad_()
        scale = data[f'{group}.pool_scale'].item()
        pair_wise_loss(student, data[f'{group}.feat_T'], scale=scale, detach_norm=False).backward()
        through = data[f'{group}.grad_S_if_norm_not_detached']
        assert_near(student.grad, through, 1e-5)
        assert (data[f'{group}.grad_S'] - through).abs().max() > 0.1 * through.abs().max()

    def test_by_hand(self):
        # The student's two nodes point the same way (similarity 1), the teacher's across (0): of four pairs, two differ
        # by 1. A second, equal image does not change the mean.
        student = torch.tensor([[[[3.0, 5.0]], [[0.0, 0.0]]]])
        teacher = torch.tensor([[[[2.0, 0.0]], [[0.0, 7.0]]]])
        assert pair_wise_loss(student, teacher, patch=(1, 1)) == 0.5
        assert pair_wise_loss(student.repeat(2, 1, 1, 1), teacher.repeat(2, 1, 1, 1), patch=(1, 1)) == 0.5

    def test_default_pools_halves_by_their_maximum(self):
        # Two equal rows of four cells: 2 x 2 nodes of one channel, so similarities are products of signs. Where the two
        # columns of nodes agree in one model and not in the other, 8 of 16 pairs differ by 2.
        student = torch.tensor([1.0, -3, 2, 0]).view(1, 1, 1, 4).expand(1, 1, 2, 4)
        teacher = torch.tensor([-1.0, -3, 3, -5]).view(1, 1, 1, 4).expand(1, 1, 2, 4)
        # Maxima 1 and 2 against -1 and 3.
        assert pair_wise_loss(student, teacher) == 2
        # Means -1 and 1 against -2 and -1.
        assert pair_wise_loss(student, teacher, pooling='avg') == 2
        # Maxima 3 and 0 of the mirrored student: in 12 pairs one side is 0.
        assert pair_wise_loss(-student, teacher) == 12 / 16
        # Means -1 and 1 against means -1 and 1.
        assert pair_wise_loss(student, student, pooling='avg') == 0

    def test_patches_of_two_numbers(self):
        # 4 x 6 cells of patches of 2 x 3 are constant, so that pooling leaves their values.
        small = maps((3, 4, 2, 2), (3, 7, 2, 2))
        large = [item.repeat_interleave(2, 2).repeat_interleave(3, 3) for item in small]
        expected = pair_wise_loss(*small, patch=(1, 1))
        for pooling in ('max', 'avg'):
            assert_near(pair_wise_loss(*large, patch=(2, 3), pooling=pooling), expected, 1e-6)

    def test_last_patches_may_hang_over(self):
        # 3 x 5 cells in patches of 2 x 2 are 2 x 3 nodes; the mean of a patch is over the cells that exist.
        small = maps((2, 4, 2, 3), (2, 4, 2, 3))
        large = [item.repeat_interleave(2, 2).repeat_interleave(2, 3)[..., :3, :5] for item in small]
        expected = pair_wise_loss(*small, patch=(1, 1))
        for pooling in ('max', 'avg'):
            assert_near(pair_wise_loss(*large, patch=(2, 2), pooling=pooling), expected, 1e-6)

    def test_share_of_the_map_is_rounded_down(self):
        # 0.4 of 7 x 5 cells are 2 x 2.
        pair = maps((1, 3, 7, 5), (1, 3, 7, 5))
        assert pair_wise_loss(*pair, scale=0.4) == pair_wise_loss(*pair, patch=(2, 2))

    def test_the_teacher_gets_no_gradient(self):
        teacher = torch.randn(1, 3, 4, 4, requires_grad=True)
        pair_wise_loss(torch.randn(1, 3, 4, 4, requires_grad=True), teacher).backward()
        assert teacher.grad is None

    def test_cell_without_length_gets_no_gradient(self):
        """Divided by 1e-8, it would drown those of the other cells, and an optimizer with them."""
        student = torch.randn(1, 3, 2, 2)
        student[..., 0, 0] = 0
        student.requires_grad_()
        pair_wise_loss(student, torch.randn(1, 3, 2, 2), patch=(1, 1)).backward()
        assert student.grad[..., 0, 0].eq(0).all()
        assert 0 < student.grad.abs().max() < 10

    def test_zero_vector_has_a_finite_gradient_through_the_norm(self):
        student = torch.zeros(1, 3, 2, 2, requires_grad=True)
        pair_wise_loss(student, torch.randn(1, 3, 2, 2), patch=(1, 1), detach_norm=False).backward()
        assert torch.isfinite(student.grad).all()

    def test_half_precision(self):
        for pooling in ('max', 'avg'):
            assert_full_precision(pair_wise_loss, *maps((1, 3, 8, 8), (1, 5, 8, 8)), pooling=pooling)


class TestRefusals:
    @pytest.mark.parametrize(
        ('options', 'size', 'message'),
        [
            (
                {'scale': 0.1},
                (8, 30),
                'The pair-wise loss pools 0 x 3 cells of a map of 8 x 30; choose a larger scale or give the patch in '
                'cells.',
            ),
            (
                {'patch': (8, 8)},
                (6, 7),
                'The pair-wise loss compares nodes, but pooling 8 x 8 cells of a map of 6 x 7 leaves one; choose a '
                'smaller scale or patch, or a larger crop.',
            ),
            (
                {'scale': 1.0},
                (6, 7),
                'The pair-wise loss compares nodes, but pooling 6 x 7 cells of a map of 6 x 7 leaves one; choose a '
                'smaller scale or patch, or a larger crop.',
            ),
            ({'pooling': 'sum'}, (4, 4), "pooling must be one of 'max', 'avg', but it is 'sum'."),
        ],
    )
    def test_map_that_cannot_be_pooled(self, options, size, message):
        with pytest.raises(ValueError) as error:
            pair_wise_loss(torch.zeros(1, 2, *size), torch.zeros(1, 2, *size), **options)
        assert str(error.value) == message

    def test_maps_of_two_sizes(self):
        with pytest.raises(ValueError) as error:
            pair_wise_loss(torch.zeros(1, 2, 8, 9), torch.zeros(1, 2, 4, 9))
        assert str(error.value) == (
            'The pair-wise loss needs maps of one size, but the student gives 8 x 9 cells and the teacher 4 x 9; '
            'record features of one stride or add a connector that resizes.'
        )

    def test_two_nodes_are_enough(self):
        assert pair_wise_loss(torch.ones(1, 1, 1, 2), torch.ones(1, 1, 1, 2), patch=(1, 1)) == 0

    def test_too_many_nodes(self):
        # (128 * 256)^2 similarities of 4 bytes are 4 GiB an image.
        feature = torch.zeros(1).expand(2, 8, 128, 256)
        with pytest.raises(ValueError) as error:
            pair_wise_loss(feature, feature, patch=(1, 1))
        assert str(error.value) == (
            'The pair-wise loss over 128 x 256 nodes and 2 images needs 8.0 GiB for each model, more than max_gib = 1; '
            'pool more with scale or patch, or raise max_gib.'
        )

    def test_limit_is_an_option(self):
        # 256^2 * 4 bytes are 2^-12 GiB, and twice that in double precision.
        feature = torch.randn(1, 2, 16, 16)
        pair_wise_loss(feature, feature, patch=(1, 1), max_gib=2**-12)
        for item, limit in ((feature, 2**-12 * 0.99), (feature.double(), 2**-11 * 0.99)):
            with pytest.raises(ValueError, match='raise max_gib'):
                pair_wise_loss(item, item, patch=(1, 1), max_gib=limit)


class TestPairWiseGradient:
    """The gradient of the distance between similarities is written by hand."""

    @pytest.mark.parametrize('detach_norm', [True, False])
    @pytest.mark.parametrize('seed', range(3))
    def test_equal_to_that_of_the_matrices(self, detach_norm, seed):
        random = torch.Generator().manual_seed(seed)
        student = torch.randn(2, 3, 4, 5, generator=random, dtype=torch.float64)
        teacher = torch.randn(2, 6, 4, 5, generator=random, dtype=torch.float64)
        student[:, :, seed, 0] = 0
        student.requires_grad_()
        ours = pair_wise_loss(student, teacher, patch=(1, 1), detach_norm=detach_norm)
        difference = node_similarity(teacher) - node_similarity(student, detach_norm=detach_norm)
        expected = (difference**2).mean()
        assert_near(ours, expected, 1e-10)
        found, wanted = (torch.autograd.grad(3 * side, student)[0] for side in (ours, expected))
        assert_near(found, wanted, 1e-9)

    def test_both_orders(self):
        student, teacher = torch.randn(2, 1, 2, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        student.requires_grad_()

        def loss(x):
            return pair_wise_loss(x, teacher, patch=(1, 1), detach_norm=False)

        assert torch.autograd.gradcheck(loss, student)
        assert torch.autograd.gradgradcheck(loss, student)

    def test_one_matrix_exists_at_a_time_and_none_is_kept(self):
        student, teacher = torch.randn(1, 2, 20, 20, requires_grad=True), torch.randn(1, 2, 20, 20)
        matrix, kept = 4 * 400**2, []
        keeping = torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x)
        with keeping, PeakMemory() as memory:
            loss = pair_wise_loss(student, teacher, patch=(1, 1))
        assert memory.peak < 1.1 * matrix
        assert max(tensor.numel() for tensor in kept) == 800
        with PeakMemory() as memory:
            loss.backward()
        assert memory.peak < 0.1 * matrix

    def test_without_a_gradient_none_is_computed(self):
        student, teacher = torch.randn(2, 1, 2, 4, 4)
        with torch.no_grad():
            assert not pair_wise_loss(student, teacher, patch=(1, 1)).requires_grad


class TestNodeSimilarity:
    @pytest.mark.parametrize('group', GROUPS)
    def test_golden(self, group):
        data = read_golden('structured_seg_pairwise')
        for side in 'ST':
            nodes = data.get(f'{group}.pooled_{side}', data[f'{group}.feat_{side}'])
            assert_near(node_similarity(nodes), data[f'{group}.sim_{side}'], 1e-5)

    def test_by_hand(self):
        # Cells (3, 4), (0, 2) and (0, 0): cosines 1, 4/5 and 0 with anything.
        cells = torch.tensor([[3.0, 0, 0], [4, 2, 0]]).view(1, 2, 1, 3)
        expected = torch.tensor([[[1, 0.8, 0], [0.8, 1, 0], [0, 0, 0]]])
        assert_near(node_similarity(cells), expected, 1e-6)

    def test_tiny_vectors_are_shrunk_rather_than_divided_by_nothing(self):
        # A norm of 1e-8 is doubled by what is added to it: (1/2)^2.
        cell = torch.full((1, 1, 1, 1), 1e-8, dtype=torch.float64)
        assert_near(node_similarity(cell), torch.full((1, 1, 1), 0.25), 1e-6)

    @pytest.mark.parametrize(('options', 'constant'), [({}, True), ({'detach_norm': False}, False)])
    def test_norm_is_a_constant_for_the_gradient(self, options, constant):
        # One cell of one channel: f^2 / n^2 with a constant n = 2 has the derivative 2 f / n^2 = 1, and else 0.
        cell = torch.full((1, 1, 1, 1), 2.0, dtype=torch.float64, requires_grad=True)
        node_similarity(cell, **options).sum().backward()
        assert abs(cell.grad.item() - float(constant)) < 1e-6

    def test_half_precision(self):
        assert_full_precision(node_similarity, torch.randn(1, 3, 2, 2))
