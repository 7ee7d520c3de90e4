"""The numbers behind the figures are those of the formulas, for the image and the level that the figure names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from _helpers import tiny
from mmengine.registry import MODELS as ROOT_MODELS

from mmkd_plugin.block import expand_config
from mmkd_plugin.errors import DistillError
from mmkd_plugin.functional import box_masks, channel_attention, spatial_attention
from mmkd_plugin.views.areas import area_levels, areas_figure
from mmkd_plugin.views.attention import attention_figure, attention_of
from mmkd_plugin.views.compared import compared_losses, compared_maps, evaluating
from mmkd_plugin.views.differences import ATTENTION, VALUES, differences
from mmkd_plugin.views.drawing import figure_pixels, network_image, stride_of
from mmkd_plugin.views.found import Found, found_figure


def in_a_step(look: Any, **methods: Any) -> tuple[Any, Any, Any]:
    """The algorithm, a batch of three images, and what ``look`` saw of the distiller during the step."""
    cfg = expand_config(tiny.run_config('unused', distill=tiny.block(methods=methods or dict(fgd=dict(type='FGD')))))
    torch.manual_seed(0)
    algorithm = ROOT_MODELS.build(cfg.model)
    seen: list[Any] = []
    algorithm.step_observers.append(lambda algorithm, losses: seen.append(look(algorithm.distiller)))
    batch = tiny.batch(algorithm)
    algorithm.loss(batch['inputs'], batch['data_samples'])
    return algorithm, batch, seen[0]


def arguments_of(distiller: Any) -> list[dict[str, Any]]:
    return [distiller.arguments(name) for name in distiller.distill_losses]


def test_areas_are_the_masks_of_the_loss() -> None:
    _, batch, (levels, arguments) = in_a_step(lambda distiller: (area_levels(distiller, 2), arguments_of(distiller)))
    truth = batch['data_samples'][2].gt_instances.bboxes
    boxes = getattr(truth, 'tensor', truth)[None]
    for level, given in zip(levels, arguments):
        size = tuple(given['student'].shape[2:])
        shapes = torch.tensor([batch['data_samples'][2].img_shape])
        foreground, background = box_masks(boxes, torch.ones(1, boxes.shape[1]).bool(), shapes, size)
        assert torch.equal(level.foreground, foreground[0]) and torch.equal(level.background, background[0])
        assert torch.equal(level.scale, foreground[0] + background[0])
    assert len(levels) == 3


def test_areas_together_have_no_foreground() -> None:
    _, _, levels = in_a_step(lambda distiller: area_levels(distiller, 2), fgd=dict(type='FGD', areas='together'))
    assert all(not level.foreground.any() for level in levels)
    assert all(torch.allclose(level.scale, torch.tensor(1 / level.scale.numel())) for level in levels)


def test_areas_are_tinted_where_the_masks_are() -> None:
    _, batch, levels = in_a_step(lambda distiller: area_levels(distiller, 1))
    image = np.full((64, 64, 3), 100, np.uint8)
    figure = areas_figure(image, torch.zeros(0, 4), levels)
    tinted = figure.axes[1].images[0].get_array()
    cells = np.asarray(tinted)[4::8, 4::8, 0]
    bright = 0.55 * 100 / 255 + 0.45
    assert np.array_equal(np.isclose(cells, bright), levels[0].foreground.numpy() > 0)
    assert figure.axes[1].get_title() == f'stride 8: {int((levels[0].foreground > 0).sum())} of 64 cells'
    shown = figure.axes[9].images[0].get_array()
    assert np.array_equal(np.asarray(shown), levels[0].scale.numpy())


@pytest.mark.parametrize(
    ('pixels', 'cells', 'stride'),
    [((192, 256), (2, 2), 128), ((800, 1216), (25, 38), 32), ((800, 1216), (7, 10), 128), ((224, 224), (16, 16), 14)],
)
def test_stride_of_maps_that_reach_beyond_the_image(
    pixels: tuple[int, int], cells: tuple[int, int], stride: int
) -> None:
    assert stride_of(np.zeros((*pixels, 3), np.uint8), torch.zeros(cells)) == stride


def test_compared_maps_are_what_the_loss_gets() -> None:
    def look(distiller: Any) -> Any:
        return compared_maps(distiller, compared_losses(distiller)), arguments_of(distiller)

    algorithm, _, (levels, arguments) = in_a_step(look)
    for level, given in zip(levels, arguments):
        assert torch.equal(level.adapted, given['student']) and torch.equal(level.teacher, given['teacher'])
        assert level.connected and (level.student.shape[1], level.adapted.shape[1]) == (16, 24)
    assert algorithm.distiller.training


def test_maps_are_those_of_fgd_or_of_the_method_named() -> None:
    cwd = dict(type='Feature', loss=dict(type='ChannelWiseDivergence'), adapt='never', tap='backbone.layer2')
    _, _, names = in_a_step(
        lambda distiller: [compared_losses(distiller, method) for method in (None, 'hint')],
        hint=cwd,
        fgd=dict(type='FGD'),
    )
    assert names == [['loss_fgd_level0', 'loss_fgd_level1', 'loss_fgd_level2'], ['loss_hint_level0']]


def test_unknown_method() -> None:
    with pytest.raises(DistillError, match='No method "fdg" of the distill block compares maps: did you mean "fgd"'):
        in_a_step(lambda distiller: compared_losses(distiller, 'fdg'))


def test_attention_is_that_of_the_formulas_and_drawn_on_one_scale() -> None:
    torch.manual_seed(1)
    teacher, student = torch.randn(2, 6, 8, 8), torch.randn(2, 4, 8, 8)
    models = {name: attention_of([maps], 0.3, index=1) for name, maps in (('teacher', teacher), ('student', student))}
    assert torch.equal(models['student'].spatial[0], spatial_attention(student, 0.3)[1])
    assert torch.equal(models['student'].channel[0], channel_attention(student, 0.3)[1])
    figure = attention_figure(np.zeros((64, 64, 3), np.uint8), models)
    above, below = figure.subfigs
    heats = [axis.images[-1] for axis in above.axes if len(axis.images) == 2]
    assert [np.asarray(heat.get_array()).tolist() for heat in heats] == [
        models[name].spatial[0].tolist() for name in ('teacher', 'student')
    ]
    values = torch.stack([model.spatial[0] for model in models.values()])
    assert {heat.get_clim() for heat in heats} == {(float(values.min()), float(values.max()))}
    curves = [np.asarray(line.get_ydata()).tolist() for line in below.axes[0].lines]
    assert curves == [model.channel[0].sort(descending=True).values.tolist() for model in models.values()]
    assert 'where the number is the same' in below.get_supxlabel()
    assert figure_pixels(figure).shape[1] == int(100 * (2.3 * 2 + 0.9))


def test_channels_are_in_the_order_of_the_teacher() -> None:
    teacher, student = (torch.tensor(values).view(1, 3, 1, 1) for values in ([1.0, 3.0, 2.0], [5.0, 4.0, 6.0]))
    models = {name: attention_of([maps], 0.5) for name, maps in (('teacher', teacher), ('student', student))}
    below = attention_figure(np.zeros((8, 8, 3), np.uint8), models).subfigs[1]
    order = [1, 2, 0]
    drawn = np.asarray(below.axes[0].lines[1].get_ydata())
    assert drawn.tolist() == models['student'].channel[0][order].tolist()


def test_differences_by_hand() -> None:
    student, teacher = torch.zeros(2, 2, 1, 2), torch.zeros(2, 2, 1, 2)
    student[1, 0, 0, 0], teacher[1, 1, 0, 0], teacher[1, 0, 0, 1] = 3.0, 1.0, -4.0
    [values] = differences([(student, teacher)], VALUES, 0.5, index=1)
    assert values.tolist() == [[2.0, 2.0]]
    # The mean of the student's first cell is 1.5, the teacher's are 0.5 and 2.
    [apart] = differences([(student, teacher)], ATTENTION, 1.0, index=1)
    first = 2 * (np.exp(1.5) / (np.exp(1.5) + 1) - np.exp(0.5) / (np.exp(0.5) + np.exp(2)))
    assert torch.allclose(apart, torch.tensor([[first, first]], dtype=torch.float32).abs())


def test_image_is_what_the_network_sees_in_its_own_colours() -> None:
    algorithm, batch, _ = in_a_step(lambda distiller: None)
    image = network_image(algorithm.data_preprocessor, batch['inputs'][0])
    raw = tiny.TinyBoxes()[0]['inputs']
    assert np.array_equal(image[:48, :56], raw.permute(1, 2, 0).numpy()[..., ::-1])
    # The padding is 0 behind the normalisation, the mean before it.
    assert image.shape == (64, 64, 3) and (image[48:] == (100, 110, 120)).all()


def test_modes_are_put_back() -> None:
    model = torch.nn.Sequential(torch.nn.BatchNorm2d(1).eval(), torch.nn.Dropout())
    with evaluating(model):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == [True, False, True]


def test_names_of_classes_stand_below_what_was_found() -> None:
    boxes = torch.tensor([[1.0, 1.0, 5.0, 5.0]])
    found = dict(truth=Found(boxes, torch.tensor([1])), student=Found(boxes, torch.tensor([7]), torch.tensor([0.5])))
    figure = found_figure(np.zeros((8, 8, 3), np.uint8), found, ['square', 'bar'])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ['bar', 'class 7']
    assert [text.get_text() for text in figure.axes[1].texts] == [' 0.50']
