"""The sync counter sees what it must see, and nothing else."""

from __future__ import annotations

import warnings

import pytest
import torch

from mmkd_plugin.utilities.host_syncs import HostSyncs, count_host_syncs

WAITING = {
    'item': lambda x: x[0].item(),
    'float': lambda x: float(x[0]),
    'if': lambda x: bool(x[0] > 0),
    'tolist': lambda x: x.tolist(),
    'cpu': lambda x: x.cpu(),
    'to cpu': lambda x: x.to('cpu'),
    'numpy': lambda x: x.numpy(),
    'boolean index': lambda x: x[x > 1],
    'boolean index assignment': lambda x: x.clone().__setitem__(x > 1, torch.ones(2)),
    'where of a condition': lambda x: torch.where(x > 1),
    'nonzero': lambda x: x.nonzero(),
    'masked_select': lambda x: x.masked_select(x > 1),
    'slice by a tensor': lambda x: x[: torch.tensor([1, 2])[0]],
    'unique': lambda x: x.unique(),
    'equal': lambda x: torch.equal(x, x),
    'repeat_interleave': lambda x: x.repeat_interleave(x.long()),
    'iteration over values': lambda x: max(x, key=float),
}
FREE = {
    'arithmetic': lambda x: (x * 2 - x).sum(),
    'where with values': lambda x: torch.where(x > 1, x, 0),
    'integer index': lambda x: x[torch.tensor([0, 2])],
    'slice by a number': lambda x: x[:2],
    'clamp of a count': lambda x: x / (x > 1).sum().clamp(min=1),
    'shape': lambda x: x.new_zeros(x.shape[0]),
    'cast': lambda x: x.to(torch.float64),
}


@pytest.mark.parametrize('name', WAITING)
def test_waiting_call_is_found(name):
    x = torch.tensor([1.0, 2.0, 3.0])
    with HostSyncs() as syncs:
        WAITING[name](x)
    assert syncs.calls


@pytest.mark.parametrize('name', FREE)
def test_free_call_is_not_counted(name):
    x = torch.tensor([1.0, 2.0, 3.0])
    with HostSyncs() as syncs:
        FREE[name](x)
    assert syncs.calls == []


def test_waiting_call_in_the_backward_pass_is_found():
    class Waiting(torch.autograd.Function):
        @staticmethod
        def forward(context, x):
            return x.clone()

        @staticmethod
        def backward(context, gradient):
            return gradient * gradient.sum().item()

    x = torch.ones(2, requires_grad=True)
    y = Waiting.apply(x).sum()
    with HostSyncs() as syncs:
        y.backward()
    assert syncs.calls == ['_local_scalar_dense']


def test_nothing_is_counted_after_the_block():
    with HostSyncs() as syncs:
        pass
    torch.ones(1).item()
    assert syncs.calls == []


def test_a_function_that_waits_is_counted_and_a_move_to_where_it_is_does_not_wait():
    x = torch.ones(3)
    assert count_host_syncs(lambda: (x.sum().item(), x.tolist(), x.to('cpu'), x + 1), torch.device('cpu')) == 2


def test_what_an_optimizer_reads_of_its_own_counts_is_no_wait():
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([weight], foreach=False)

    def step():
        weight.grad = torch.ones(2)
        optimizer.step()
        weight.sum().item()

    assert count_host_syncs(step, torch.device('cpu')) > 1
    assert count_host_syncs(step, torch.device('cpu'), [optimizer]) == 1
    assert not optimizer._optimizer_step_pre_hooks and not optimizer._optimizer_step_post_hooks


def test_on_cuda_torch_says_where_it_waits(monkeypatch):
    modes = ['default']
    monkeypatch.setattr(torch.cuda, 'get_sync_debug_mode', lambda: 0)
    monkeypatch.setattr(torch.cuda, 'set_sync_debug_mode', modes.append)

    def step():
        for _ in range(3):
            warnings.warn('called a synchronizing CUDA operation', stacklevel=1)
        warnings.warn('another', stacklevel=1)

    assert count_host_syncs(step, torch.device('cuda')) == 3
    assert modes == ['default', 'warn', 0]
