"""Layers of two models side by side: what is paired, what is left out, and what a pattern finds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from _helpers import tiny, tiny_seg
from mmengine.registry import MODELS

from mmkd_plugin.block import expand_config
from mmkd_plugin.errors import DistillError
from mmkd_plugin.probe.comparison import LayerRow, known_rows, layer_rows, matching, outermost
from mmkd_plugin.probe.listing import Known, Layer, ModelLayers, list_layers
from mmkd_plugin.probe.taps import Tap


def model(*paths: str, strides: tuple[int, ...] = (), heads: tuple[str, ...] = ()) -> ModelLayers:
    """A made-up model: its layers, its levels ``neck.0``, ``neck.1``, ..., and what is known of its heads."""
    output = tuple(
        Known('neck level', f'neck.{index}', ((4, 8, 8),), (stride,), tap=Tap('neck', 4, stride, data_idx=index))
        for index, stride in enumerate(strides)
    )
    layers = {path: Layer(path, 'Conv2d', ((4, 8, 8),), (8,), 10) for path in paths}
    return ModelLayers('Made', 10, (64, 64), layers, tuple(paths), output, output, tuple(map(Known, heads)))


def paths(rows: list[LayerRow]) -> list[str]:
    return [row.path for row in rows]


def test_levels_are_paired_by_stride() -> None:
    rows = known_rows(model(strides=(4, 8, 16)), model(strides=(8, 16, 32)))
    found = [(row.role, row.student and row.student.path, row.teacher and row.teacher.path) for row in rows]
    assert found == [
        ('neck level 0', 'neck.1', 'neck.0'),
        ('neck level 1', 'neck.2', 'neck.1'),
        ('neck level (unpaired)', 'neck.0', None),
        ('neck level (unpaired)', None, 'neck.2'),
    ]


def test_nearest_levels_are_paired_where_no_stride_is_common() -> None:
    rows = known_rows(model(strides=(8, 32)), model(strides=(4, 16)))
    assert [(row.role, row.student and row.student.path, row.teacher and row.teacher.path) for row in rows] == [
        ('neck level 0', 'neck.0', 'neck.0'),
        ('neck level 1', 'neck.1', 'neck.1'),
    ]


def test_heads_are_paired_by_name_and_in_their_order() -> None:
    ours = model(heads=('decode head logits', 'auxiliary logits', 'auxiliary logits'))
    rows = known_rows(ours, model(heads=('decode head logits', 'anchors', 'auxiliary logits')))
    assert [(row.role, row.student is not None, row.teacher is not None) for row in rows] == [
        ('decode head logits', True, True),
        ('anchors', False, True),
        ('auxiliary logits', False, True),
        ('auxiliary logits 0', True, False),
        ('auxiliary logits 1', True, False),
    ]


def test_model_alone_has_all_its_levels() -> None:
    assert [row.role for row in known_rows(model(strides=(8, 16)), None)] == ['neck level 0', 'neck level 1']


def test_levels_before_the_norm_are_listed_where_they_differ() -> None:
    detector = list_layers(MODELS.build(tiny.retinanet()), 'student')
    roles = [row.role for row in known_rows(detector, detector)]
    assert roles[:6] == [f'{kind} level {index}' for kind in ('neck', 'pre_norm') for index in range(3)]
    segmentor = list_layers(MODELS.build(tiny_seg.pspnet()), 'student')
    assert not [row for row in known_rows(segmentor, segmentor) if row.role.startswith('pre_norm')]


def test_layers_are_joined_by_path() -> None:
    rows = layer_rows(model('a', 'b', 'c'), model('a', 'x', 'y', 'c', 'z'), [])
    assert [(row.path, row.student is not None, row.teacher is not None) for row in rows] == [
        ('a', True, True),
        ('x', False, True),
        ('y', False, True),
        ('b', True, False),
        ('c', True, True),
        ('z', False, True),
    ]


def test_layers_bear_the_names_of_their_own_side() -> None:
    ours, theirs = model('neck.0', 'neck.1', strides=(8, 16)), model('neck.0', 'neck.1', strides=(4, 8))
    rows = layer_rows(ours, theirs, known_rows(ours, theirs))
    assert [(row.student_roles, row.teacher_roles) for row in rows] == [
        (('neck level 0',), ('neck level (unpaired)',)),
        (('neck level (unpaired)',), ('neck level 0',)),
    ]


def test_layers_within_layers_are_left_out_but_for_known_ones() -> None:
    found = model('backbone.layer1', 'backbone.layer1.0', 'neck.0', 'neck.0.conv', 'head', 'head.conv', strides=(8,))
    rows = layer_rows(found, None, [])
    assert paths(outermost(rows)) == ['backbone.layer1', 'neck.0', 'head', 'head.conv']
    rows = [*rows, LayerRow('neck.0.norm', None, None, student_roles=('pre_norm level 0',))]
    assert paths(outermost(rows))[-1] == 'neck.0.norm'


@pytest.mark.parametrize(
    ('pattern', 'found'),
    [
        ('layer1', ['backbone.layer1', 'backbone.layer1.0', 'backbone.layer10']),
        ('layer1.', ['backbone.layer1.0']),
        ('backbone.layer?', ['backbone.layer1']),
        ('neck.[01]', ['neck.0']),
        ('*1*', ['backbone.layer1', 'backbone.layer1.0', 'backbone.layer10']),
    ],
)
def test_pattern(pattern: str, found: list[str]) -> None:
    rows = layer_rows(model('backbone.layer1', 'backbone.layer1.0', 'backbone.layer10', 'neck.0'), None, [])
    assert paths(matching(rows, pattern)) == found


def test_pattern_of_nothing_is_told_the_nearest_names() -> None:
    rows = layer_rows(model('backbone.layer1', 'neck.convs.0'), None, [])
    with pytest.raises(DistillError, match=r'matches "layr1": did you mean "layer1"'):
        matching(rows, 'layr1')


def test_pattern_of_what_returns_no_map_says_so() -> None:
    rows = layer_rows(model('backbone.layer1'), None, [])
    with pytest.raises(DistillError, match='matches modules such as "roi_head", but none that returns a feature map'):
        matching(rows, 'roi', ['backbone.layer1', 'roi_head'])


@pytest.mark.parametrize(('kit', 'build'), [(tiny, tiny.retinanet), (tiny_seg, tiny_seg.pspnet)])
def test_every_path_listed_is_a_tap(kit: Any, build: Callable[..., dict]) -> None:
    """Each path that both models have makes a loss, whose recorders read it."""
    listed = [list_layers(MODELS.build(config), 'student') for config in (build(), build(width=24))]
    rows = outermost(layer_rows(listed[0], listed[1], known_rows(*listed)))
    assert len(rows) > 15
    loss = dict(type='PKDLoss')
    methods = {f'tap{index}': dict(type='Feature', tap=row.path, loss=loss) for index, row in enumerate(rows)}
    block = dict(teacher=build(width=24), teacher_ckpt='random', methods=methods)
    model = MODELS.build(expand_config(kit.run_config('unused', distill=block)).model)
    data = kit.batch(model)
    losses = model(data['inputs'], data['data_samples'], mode='loss')
    found = {row.path: losses[f'distill.loss_tap{index}'] for index, row in enumerate(rows)}
    assert not [path for path, value in found.items() if not value.isfinite()]
