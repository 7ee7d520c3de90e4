"""A teacher's file that holds no teacher is refused, in a sentence about the teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from _helpers.tiny import retinanet
from mmengine.registry import MODELS

from mmkd_plugin.engine.preflight import check_classes, class_names
from mmkd_plugin.errors import DistillError
from mmkd_plugin.teachers import build_teacher


def state() -> dict[str, torch.Tensor]:
    return MODELS.build(retinanet()).state_dict()


def load(folder: Path, stored: Any) -> None:
    torch.save(stored, folder / 'teacher.pth')
    build_teacher(retinanet(), str(folder / 'teacher.pth'))


@pytest.mark.parametrize(
    ('stored', 'contents'),
    [
        ([1, 2], 'a list'),
        (torch.zeros(3), 'a Tensor'),
        (dict(state_dict=[torch.zeros(3)]), 'a list'),
        (dict(state_dict=3), 'an int'),
        (dict(model=dict(x=torch.zeros(3)), epoch=3), 'a dict of "model", "epoch"'),
        ({}, 'a dict of nothing'),
    ],
)
def test_file_without_weights(tmp_path: Path, stored: Any, contents: str) -> None:
    with pytest.raises(DistillError, match=rf'teacher\.pth" holds {contents} instead of weights by their names'):
        load(tmp_path, stored)


def test_entry_that_is_no_tensor(tmp_path: Path) -> None:
    with pytest.raises(DistillError, match='"neck.lateral_convs.0.conv.bias" has the shape None in the file'):
        load(tmp_path, dict(state(), **{'neck.lateral_convs.0.conv.bias': 'text'}))


@pytest.mark.parametrize(
    ('key', 'value'),
    [
        ('backbone.conv1.weight', float('nan')),
        ('backbone.conv1.weight', float('inf')),
        ('backbone.bn1.running_var', float('nan')),
        ('backbone.bn1.running_mean', float('inf')),
    ],
)
def test_weights_that_are_not_finite(tmp_path: Path, key: str, value: float) -> None:
    broken = state()
    broken[key].view(-1)[0] = value
    message = rf'teacher\.pth" holds nan or infinity in "{key}", so its training had diverged; give the checkpoint'
    with pytest.raises(DistillError, match=message):
        load(tmp_path, dict(state_dict=broken))


def test_several_entries_are_counted(tmp_path: Path) -> None:
    broken = {key: value * float('nan') if value.is_floating_point() else value for key, value in state().items()}
    with pytest.raises(DistillError, match=r'in "[\w.]+" and \d+ more entries, so'):
        load(tmp_path, broken)


def test_folder(tmp_path: Path) -> None:
    with pytest.raises(DistillError, match=r'is a folder; name the file of a checkpoint\.'):
        build_teacher(retinanet(), str(tmp_path))
    torch.save(state(), tmp_path / 'iter_2.pth')
    with pytest.raises(DistillError, match=r'is a folder; name one of its files, such as ".*iter_2\.pth"\.'):
        build_teacher(retinanet(), str(tmp_path))
    build_teacher(retinanet(), str(tmp_path / 'iter_2.pth'))


@pytest.mark.parametrize('meta', [['?'], 'text', None, dict(dataset_meta=['?'])])
def test_meta_of_another_kind_says_nothing(tmp_path: Path, meta: Any) -> None:
    torch.save(dict(state_dict=state(), meta=meta), tmp_path / 'teacher.pth')
    teacher = build_teacher(retinanet(), str(tmp_path / 'teacher.pth'))
    found = teacher.meta.get('dataset_meta', teacher.meta)
    assert class_names(found) is None and check_classes(dict(classes=('a',)), found, by_class=True)
