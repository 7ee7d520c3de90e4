"""Compiled losses give the numbers of plain ones, and what cannot be compiled is refused in a sentence."""

from __future__ import annotations

import shutil
import threading

import pytest
import torch
from _helpers.golden import assert_near
from torch import nn

from mmkd_plugin.distillers import Distiller
from mmkd_plugin.errors import DistillError
from mmkd_plugin.methods import FGDLoss
from mmkd_plugin.utilities.compiling import compiled, require_compiler
from mmkd_plugin.utilities.precision import full_precision


@pytest.fixture
def compiler(monkeypatch):
    """A compiler that leaves functions as they are, and notes them."""
    seen = []

    def compile(function):
        seen.append(function)
        return function

    monkeypatch.setattr(torch, 'compile', compile, raising=False)
    return seen


# A minute of compilation.
@pytest.mark.slow
@pytest.mark.skipif(not hasattr(torch, 'compile') or not shutil.which('g++'), reason='nothing compiles here')
def test_fgd_compiled_equals_fgd():
    torch.manual_seed(0)
    module = FGDLoss(8)
    for parameter in module.parameters():
        parameter.data.normal_(std=0.3)
    fast = compiled(full_precision(module.terms))
    for height, boxes in ((12, 3), (9, 0)):
        student, teacher = torch.randn(2, 2, 8, height, 16)
        student.requires_grad_()
        corner = torch.rand(2, boxes, 2) * 80
        facts = dict(
            boxes=torch.cat([corner, corner + 30], -1),
            valid=torch.ones(2, boxes, dtype=torch.bool),
            image_shapes=torch.tensor([[height * 8, 128]] * 2),
        )
        leaves = [student, *module.parameters()]
        found, expected = fast(student=student, teacher=teacher, **facts), module.terms(student, teacher, **facts)
        assert set(found) == set(expected)
        for name, value in expected.items():
            assert_near(found[name], value, 1e-5, name=name)
            # The self-check takes the gradient of each term, and keeps the graph for the step's own.
            ours, theirs = (gradients(terms[name], leaves) for terms in (found, expected))
            scale = max(float(item.abs().max()) for item in theirs)
            for one, other in zip(ours, theirs):
                assert_near(one, other, 1e-4, scale, name=name)


def gradients(value, leaves):
    """Those of a term, 0 where there is none."""
    found = torch.autograd.grad(value, leaves, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(leaf) if item is None else item for item, leaf in zip(found, leaves)]


def test_torch_without_a_compiler_is_refused(monkeypatch):
    monkeypatch.delattr(torch, 'compile', raising=False)
    for use in (require_compiler, lambda: compiled(len), lambda: Distiller(compile_losses=True)):
        with pytest.raises(DistillError, match='needs torch.compile, which came with torch 2.0'):
            use()


def test_what_the_compiler_cannot_do_is_a_sentence(compiler, monkeypatch):
    class CompilerMissing(RuntimeError):
        """An error of torch's own."""

    CompilerMissing.__module__ = 'torch._inductor.exc'

    def fail(**_):
        raise CompilerMissing('\nNo working C++ compiler found\nin all of these places')

    with pytest.raises(DistillError) as error:
        compiled(fail)(x=1)
    assert str(error.value) == (
        'torch could not compile the loss (No working C++ compiler found); leave out "distill.compile_losses", or '
        'install what torch.compile needs: a C++ compiler such as g++, and on a GPU Triton.'
    )


def test_errors_of_the_loss_stay_its_own(compiler):
    def fail(**_):
        raise IndexError('out of range')

    with pytest.raises(IndexError, match='out of range'):
        compiled(fail)(x=1)


def test_each_loss_has_a_code_of_its_own(compiler):
    assert [compiled(function)(x=-3) for function in (lambda x: x + 1, lambda x: x * 2)] == [-2, -6]
    one, other = compiler
    assert one.__code__ is not other.__code__


def test_graphs_outlive_a_gradient_in_every_thread(compiler):
    compiled(len)
    config = pytest.importorskip('torch._functorch.config')
    seen = []
    thread = threading.Thread(target=lambda: seen.append(getattr(config, 'donated_buffer', False)))
    thread.start()
    thread.join()
    assert [getattr(config, 'donated_buffer', False), *seen] == [False, False]


class Difference(nn.Module):
    """A loss without terms."""

    def forward(self, student, teacher):
        return (student - teacher).sum()


@pytest.mark.parametrize(('wanted', 'keep', 'times'), [(True, set(), 1), (True, {'loss_x'}, 0), (False, set(), 0)])
def test_distiller_compiles_each_loss_once(compiler, wanted, keep, times):
    distiller = Distiller(compile_losses=wanted)
    distiller.keep = keep
    distiller.distill_losses['loss_x'] = Difference()
    distiller.loss_forward_mappings = dict(loss_x=dict(student=dict(), teacher=dict()))
    for _ in range(2):
        records = iter([torch.full((2,), 3.0), torch.ones(2)])
        distiller.get_record = lambda records=records, **_: next(records)
        assert distiller.compute_terms() == {'loss_x': {'': 4}}
    assert len(compiler) == times
