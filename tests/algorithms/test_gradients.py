"""The gradients of losses, compared where they reach the student."""

from __future__ import annotations

import types

import pytest
import torch
from _helpers.tiny import batch, block, run_config
from mmengine.registry import MODELS
from torch import nn
from torch.utils.checkpoint import checkpoint

from mmkd_plugin.algorithms.gradients import Pull, compare_gradients, pulls_by_term, shared_features
from mmkd_plugin.block import expand_config
from mmkd_plugin.errors import DistillError


class Student(nn.Module):
    """A backbone that doubles, a neck that triples, and a head on top."""

    def __init__(self, head=lambda feature: feature) -> None:
        super().__init__()
        self.backbone, self.neck, self.head = Times(2.0), Times(3.0), head

    def forward(self, image):
        return self.head(self.neck(self.backbone(image)))


class Times(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, feature):
        return self.factor.to(feature.dtype) * feature


def taps(**tapped) -> types.SimpleNamespace:
    """A distiller whose losses tap these features, each ``(path, feature)``."""
    return types.SimpleNamespace(student_taps=lambda loss: tapped[loss])


def run(student, image):
    with shared_features(student) as shared:
        out = student(image)
    return out, shared


def test_features_of_the_trunk_are_compared_where_they_are_tapped():
    """At the backbone's output x, of which the task loss is 3(x1 + x2) and the term 5 x1: norms 3 sqrt(2) and 5."""
    student = Student()
    seen = []
    student.backbone.register_forward_hook(lambda module, inputs, output: seen.append(output))
    out, shared = run(student, torch.ones(2))
    pull = Pull([5 * seen[0][0]], ['loss_a'])
    distiller = taps(loss_a=[('backbone', seen[0])])
    found = compare_gradients(student, distiller, out.sum(), {'a': pull}, shared)
    assert found['a'].tolist() == pytest.approx([18, 25])
    assert student.backbone.factor.grad is None and student.neck.factor.grad is None
    # The graph is still there.
    out.sum().backward()
    assert student.backbone.factor.grad is not None


def test_what_heads_predict_is_compared_at_the_neck():
    """At y, where the head gives y squared: the task loss is its sum, 2y at y = 6, the term half of one of it."""
    student = Student(head=torch.square)
    out, shared = run(student, torch.ones(2))
    pulls = {'a': Pull([out[0] / 4, out[0] / 4], ['loss_a', 'loss_b'])}
    distiller = taps(loss_a=[('head', out)], loss_b=[('head', out)])
    found = compare_gradients(student, distiller, out.sum(), pulls, shared)
    assert found['a'].tolist() == pytest.approx([2 * 12**2, 6**2])


def test_several_losses_are_one_gradient():
    """Terms that pull against each other at the same place do not add up."""
    student = Student()
    out, shared = run(student, torch.ones(3))
    pulls = {'a': Pull([out.sum(), -out[:2].sum()], ['loss_a', 'loss_b'])}
    found = compare_gradients(student, taps(loss_a=[('neck', out)], loss_b=[('neck', out)]), out.sum(), pulls, shared)
    assert found['a'].tolist() == pytest.approx([3, 1])


def test_terms_without_a_gradient_are_zero():
    student = Student()
    out, shared = run(student, torch.ones(2))
    distiller = taps(loss_a=[('neck', out)])
    for values in ([], [torch.tensor(3.0)], [out.detach().sum()]):
        found = compare_gradients(student, distiller, out.sum(), {'a': Pull(values, ['loss_a'])}, shared)
        assert found['a'].tolist() == pytest.approx([2, 0])


def test_frozen_features_are_left_out():
    student = Student()
    student.backbone.factor.requires_grad_(False)
    out, shared = run(student, torch.ones(2))
    distiller = taps(loss_a=[('backbone', torch.ones(2)), ('neck', out)])
    found = compare_gradients(student, distiller, out.sum(), {'a': Pull([2 * out.sum()], ['loss_a'])}, shared)
    assert found['a'].tolist() == pytest.approx([2, 8])


def test_half_precision_loses_no_small_gradients():
    """A gradient of 2**-26 at each cell is nothing in float16."""
    student = Student()
    out, shared = run(student, torch.ones(4, dtype=torch.float16))
    pull = Pull([2.0**-26 * out.float().sum()], ['loss_a'])
    found = compare_gradients(student, taps(loss_a=[('neck', out)]), out.float().sum(), {'a': pull}, shared)
    assert found['a'].tolist() == pytest.approx([4, 4 * 2.0**-52])


def test_reentrant_checkpointing_of_a_head_is_told_in_a_sentence():
    student = Student(head=lambda feature: checkpoint(torch.square, feature, use_reentrant=True))
    out, shared = run(student, torch.ones(2))
    distiller = taps(loss_a=[('head', out)])
    with pytest.raises(DistillError, match='give loss_weight a number') as caught:
        compare_gradients(student, distiller, out.sum(), {'a': Pull([out.sum()], ['loss_a'])}, shared)
    assert '\n' not in str(caught.value)


def test_student_without_a_neck_shares_its_backbone():
    student = Student()
    student.neck = None
    student.forward = lambda image: student.backbone(image)
    out, shared = run(student, torch.ones(2))
    assert len(shared) == 1 and shared[0] is out


def test_nothing_is_kept_where_it_is_not_wanted():
    student = Student()
    with shared_features(student, wanted=False) as shared:
        student(torch.ones(2))
    assert shared == []
    assert not student.neck._forward_hooks


def test_terms_of_all_levels_go_under_one_name():
    model = MODELS.build(expand_config(run_config('unused', distill=block())).model)
    model.step_observers.append(lambda algorithm, losses: found.update(pulls_by_term(algorithm.distiller)))
    found: dict[str, Pull] = {}
    model(**batch(model), mode='loss')
    assert set(found) == {f'loss_fgd_{term}' for term in ('foreground', 'background', 'attention', 'relation')}
    assert found['loss_fgd_relation'].losses == [f'loss_fgd_level{level}' for level in range(3)]


def test_measuring_changes_no_number_of_a_step():
    """The first factor is 1 where the share is what the method has by itself."""
    losses = []
    for written in ({}, dict(loss_weight='auto')):
        torch.manual_seed(0)
        cfg = run_config('unused', distill=block(methods=dict(fgd=dict(type='FGD', **written))))
        model = MODELS.build(expand_config(cfg).model)
        model.init_weights()
        if model.distiller.balance is not None:
            model.distiller.balance.paused = True
        found = model(**batch(model), mode='loss')
        sum(value for name, value in found.items() if 'loss' in name and not isinstance(value, list)).backward()
        losses.append((found, [parameter.grad for parameter in model.parameters()]))
    (plain, first), (auto, second) = losses
    assert all(torch.equal(value, auto[name]) for name, value in plain.items() if not isinstance(value, list))
    assert len(first) == len(second)
    pairs = [(one, two) for one, two in zip(first, second) if one is not None]
    assert pairs and all(torch.equal(one, two) for one, two in pairs)
