"""A module's output, refused when it was overwritten."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mmkd_plugin.errors import DistillError
from mmkd_plugin.recorders import ModuleOutputRecorder


def record(model: nn.Module, source: str) -> ModuleOutputRecorder:
    recorder = ModuleOutputRecorder(source)
    recorder.initialize(model)
    with recorder_context(recorder):
        model(torch.ones(1, 2))
    return recorder


def recorder_context(recorder):
    class Context:
        def __enter__(self):
            recorder.__enter__()

        def __exit__(self, *error):
            recorder.__exit__(*error)

    return Context()


def test_output_is_recorded():
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    recorder = record(model, '0')
    assert torch.equal(recorder.get_record_data(), model[0](torch.ones(1, 2)))


def test_in_place_operation_behind_the_module_is_noticed():
    with pytest.raises(DistillError, match='overwritten by an in-place operation'):
        record(nn.Sequential(nn.Linear(2, 3), nn.ReLU(inplace=True)), '0').get_record_data()


def test_calls_are_counted():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.shared = nn.Identity()

        def forward(self, x):
            return self.shared(self.shared(x) + 1)

    recorder = record(Twice(), 'shared')
    assert recorder.get_record_data(1).tolist() == [[2, 2]]
    with pytest.raises(DistillError, match='ran 2 times'):
        recorder.get_record_data(2)


def test_element_of_a_tuple():
    class Pair(nn.Module):
        def forward(self, x):
            return x, x + 1

    recorder = record(nn.Sequential(Pair()), '0')
    assert recorder.get_record_data(data_idx=1).tolist() == [[2, 2]]
    with pytest.raises(DistillError, match='it returns 2 tensor'):
        recorder.get_record_data(data_idx=2)


def test_unknown_module_names_the_nearest():
    with pytest.raises(DistillError, match='did you mean "layers.conv1"'):
        ModuleOutputRecorder('layers.conv').initialize(
            nn.ModuleDict({'layers': nn.ModuleDict({'conv1': nn.Identity(), 'norm': nn.Identity()})})
        )


class Head(nn.Module):
    def forward(self, x):
        return x + 1


class CallsForward(nn.Module):
    """Runs its head past the hooks, as MMSegmentation does."""

    def __init__(self):
        super().__init__()
        self.head = Head()

    def forward(self, x):
        return self.head.forward(x) + self.head(x)


@pytest.mark.parametrize(('direct', 'calls'), [(False, 1), (True, 2)])
def test_calls_past_the_hooks_are_recorded_where_asked_for(direct, calls):
    model = CallsForward()
    recorder = ModuleOutputRecorder('head', direct=direct)
    recorder.initialize(model)
    for _ in range(2):
        with recorder_context(recorder):
            model(torch.ones(1, 2))
        assert len(recorder.data_buffer) == calls
        model(torch.ones(1, 2))
        assert len(recorder.data_buffer) == calls and 'forward' not in vars(model.head)
    assert recorder.get_record_data(calls - 1).tolist() == [[2, 2]]


def test_an_error_in_the_model_takes_the_direct_recorder_off():
    model = CallsForward()
    recorder = ModuleOutputRecorder('head', direct=True)
    recorder.initialize(model)
    with pytest.raises(TypeError), recorder_context(recorder):
        model(None)
    assert 'forward' not in vars(model.head)


def test_direct_calls_of_a_replaced_forward():
    """Compiling and recomputing replace a module's own forward; what is recorded is its result, and it stays."""
    model = nn.Sequential(nn.Linear(2, 2))
    replaced = model[0].forward = lambda value: value + 7
    recorder = ModuleOutputRecorder('0', direct=True)
    recorder.initialize(model)
    with recorder_context(recorder):
        model[0].forward(torch.ones(1, 2))
    assert torch.equal(recorder.get_record_data(), torch.full((1, 2), 8.0))
    assert vars(model[0])['forward'] is replaced
