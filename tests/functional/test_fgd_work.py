"""FGD on random batches against its plain version, and the work that its terms cost."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from _helpers.golden import assert_near
from _helpers.plain_fgd import plain_masks, plain_terms, random_batch
from torch import Tensor

from mmkd_plugin.functional import box_masks, fgd, fgd_loss
from mmkd_plugin.functional.reductions import reductions
from mmkd_plugin.utilities.sharing import one_step


class TestRandomBatches:
    @pytest.fixture(params=range(6))
    def batch(self, request):
        """Images with boxes within and beyond them, with some of them padding, and with none."""
        random = torch.Generator().manual_seed(request.param)
        student, teacher = torch.randn(2, 3, 2, 4, 5, generator=random, dtype=torch.float64)
        count = (4, 0, 9)[request.param % 3]
        corner = torch.rand(3, count, 2, generator=random, dtype=torch.float64) * 70 - 20
        extent = torch.rand(3, count, 2, generator=random, dtype=torch.float64) * 40 - 5
        valid = torch.arange(count)[None] < torch.tensor([count, count // 2, 0])[:, None]
        return (
            student,
            teacher,
            torch.cat([corner, corner + extent], -1),
            valid,
            torch.tensor([[32, 40], [30, 36]] * 2)[:3],
        )

    def test_masks(self, batch):
        for found, expected in zip(box_masks(*batch[2:], (4, 5), torch.float64), plain_masks(*batch[2:], (4, 5))):
            assert_near(found, expected, 1e-6)

    def test_terms_and_gradients(self, batch):
        student, teacher, *facts = batch
        student.requires_grad_()
        masks = box_masks(*facts, (4, 5), torch.float64)
        context = [lambda x: x.mean((2, 3), keepdim=True)] * 2
        ours = fgd_loss(student, teacher, *facts, *context, temperature=0.8)
        for name, found, wanted in zip(ours._fields, ours, plain_terms(student, teacher, masks, 0.8)):
            assert_near(found, wanted, 1e-10, name=name)
            (one,) = torch.autograd.grad(found, student, retain_graph=True)
            (other,) = torch.autograd.grad(wanted, student, retain_graph=True)
            assert_near(one, other, 1e-10, floor=1e-6, name=name)

    @pytest.mark.parametrize('attend', ['both', 'spatial', 'channel', 'none'])
    def test_gradient_in_both_orders(self, attend):
        student, teacher, *facts = (item[:1] for item in random_batch()[:5])
        student, teacher = student[..., :2, :2].double().requires_grad_(), teacher[..., :2, :2].double()

        def terms(x: Tensor) -> Any:
            return tuple(fgd_loss(x, teacher, *facts, attend=attend))

        assert torch.autograd.gradcheck(terms, student)
        assert torch.autograd.gradgradcheck(terms, student)


class TestWork:
    @pytest.mark.parametrize(
        ('terms', 'options', 'sums', 'painted', 'teacher'),
        [
            (('foreground',), {}, ['energy'], 1, 1),
            (('background',), {}, ['energy'], 1, 1),
            (('attention',), {}, ['by_cell', 'by_channel'], 0, 1),
            (('attention',), dict(attend='spatial'), ['by_cell'], 0, 1),
            (('attention',), dict(attend='channel'), ['by_channel'], 0, 1),
            (('attention',), dict(attend='none'), [], 0, 0),
            (('relation',), {}, ['difference', 'square'], 0, 0),
            (('foreground',), dict(together=True), [], 0, 0),
            (('background',), dict(attend='none'), ['energy'], 1, 0),
            (('foreground', 'relation'), {}, ['energy', 'difference', 'square'], 1, 1),
        ],
    )
    def test_a_term_costs_its_own_sums_alone(self, monkeypatch, terms, options, sums, painted, teacher):
        counts, found = {'painted': 0, 'teacher': 0}, []

        def counted(name, function):
            def wrapped(*args, **kwargs):
                counts[name] += 1
                return function(*args, **kwargs)

            return wrapped

        def reduced(*args):
            found.extend(args[3])
            return reductions(*args)

        monkeypatch.setattr(fgd, 'box_masks', counted('painted', fgd.box_masks))
        monkeypatch.setattr(fgd, 'sizes', counted('teacher', fgd.sizes))
        monkeypatch.setattr(fgd, 'reductions', reduced)
        fgd_loss(*random_batch(), terms=terms, **options)
        assert found == sums
        assert counts == {'painted': painted, 'teacher': teacher}

    def test_masks_are_painted_once_a_step_and_size(self):
        student, teacher, boxes, valid, shapes, *_ = random_batch()
        with one_step():
            first = box_masks(boxes, valid, shapes, (4, 5))
            for _ in range(2):
                fgd_loss(student, teacher, boxes, valid, shapes)
            assert box_masks(boxes, valid, shapes, (4, 5))[0] is first[0]
            assert box_masks(boxes, valid, shapes, (4, 4))[0] is not first[0]
        assert box_masks(boxes, valid, shapes, (4, 5))[0] is not first[0]

    def test_areas_together_weigh_all_cells_alike(self):
        student, teacher, boxes, valid, shapes, *_ = random_batch()
        terms = fgd_loss(student, teacher, boxes, valid, shapes, together=True, attend='none')
        assert terms.foreground == 0
        assert_near(terms.background, ((student - teacher) ** 2).sum() / 20 / 2, 1e-5)
