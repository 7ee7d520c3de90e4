"""The bytes of a step are those that can be counted by hand."""

from __future__ import annotations

import copy
import os

import torch
from _helpers.tiny import block, build, retinanet, run_config

from mmkd_plugin.study.memory import peak_growth, run_bytes, tensor_bytes

CPU = torch.device('cpu')


def test_peak_is_what_is_alive_at_one_time():
    """Two tensors of 4 MB at the most: the first is gone before the third comes."""

    def work() -> None:
        first = torch.zeros(1000, 1000)
        second = first + 1
        del first
        third = second * 2
        assert third[0, 0] == 2

    assert 0 <= peak_growth(work, CPU) - 8_000_000 < 1000


def test_what_was_there_before_does_not_count():
    held = torch.zeros(1000, 1000)
    assert 0 <= peak_growth(lambda: held[:500] + 1, CPU) - 2_000_000 < 1000
    assert peak_growth(lambda: held.add_(1), CPU) < 1000


def test_backward_keeps_what_forward_saved():
    """Ten squares keep their inputs: 10 x 4 MB, and the gradients of two steps at a time."""
    start = torch.ones(1000, 1000, requires_grad=True)

    def work() -> None:
        value = start
        for _ in range(10):
            value = value**2
        value.sum().backward()

    assert 40_000_000 <= peak_growth(work, CPU) < 60_000_000


def test_the_standard_error_is_given_back(capfd):
    peak_growth(lambda: torch.zeros(10) + 1, CPU)
    os.write(2, b'still there')
    assert capfd.readouterr().err == 'still there'


def test_memory_that_is_shared_counts_once():
    tensor = torch.zeros(100)
    assert tensor_bytes([tensor, tensor[:50], tensor.view(10, 10), torch.zeros(1, dtype=torch.int64)]) == 408


def bytes_of(model) -> int:
    return sum(item.numel() * item.element_size() for item in [*model.parameters(), *model.buffers()])


def test_a_run_holds_its_models_and_the_momenta(tmp_path):
    runner = build(run_config(tmp_path / 'distilled', iterations=1, distill=block()))
    runner.train()
    algorithm = runner.model
    trained = [item for item in algorithm.parameters() if item.requires_grad]
    # SGD keeps a momentum for each number that it trains.
    momenta = sum(item.numel() * item.element_size() for item in trained)
    teacher = bytes_of(algorithm.teacher.model)
    assert run_bytes(runner) == bytes_of(algorithm) + teacher + momenta
    assert teacher > 0

    alone = build(run_config(tmp_path / 'alone', iterations=1))
    alone.train()
    own = sum(item.numel() * item.element_size() for item in alone.model.parameters())
    assert run_bytes(alone) == bytes_of(alone.model) + own


def test_averaged_copies_count(tmp_path):
    runners = [
        build(run_config(tmp_path / name, iterations=1, model=copy.deepcopy(retinanet()), **options))
        for name, options in (('plain', {}), ('averaged', dict(custom_hooks=[dict(type='EMAHook')])))
    ]
    for runner in runners:
        runner.train()
    difference = run_bytes(runners[1]) - run_bytes(runners[0])
    weights = sum(item.numel() * item.element_size() for item in runners[0].model.parameters())
    assert weights <= difference < 1.5 * weights
