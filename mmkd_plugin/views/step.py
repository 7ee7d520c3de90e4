"""Every figure of a training step."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from matplotlib.figure import Figure
from torch import Tensor

from mmkd_plugin.algorithms import DistillAlgorithm
from mmkd_plugin.views.areas import area_levels, areas_figure
from mmkd_plugin.views.attention import attention_figure, attention_of
from mmkd_plugin.views.cells import cell_levels, cells_figure
from mmkd_plugin.views.compared import compared_losses, compared_maps, temperature_of
from mmkd_plugin.views.differences import VALUES, differences, differences_figure
from mmkd_plugin.views.drawing import network_image
from mmkd_plugin.views.found import found_by, found_figure, truth_of


def step_figures(
    algorithm: DistillAlgorithm,
    inputs: Tensor,
    samples: list[Any],
    index: int,
    pictures: Collection[str],
    method: str | None = None,
    classes: Sequence[str] = (),
) -> dict[str, Figure]:
    """Draw what a step has recorded of one image; what the block or the step does not have is left out.

    Args:
        algorithm: While it holds the records of the step.
        inputs: The preprocessed batch, ``(N, 3, H, W)``.
        samples: Its data samples.
        index: Of the image in the batch.
        pictures: Names of what is wanted: ``'attention'``, ``'features'``, ``'areas'``, ``'cells'``,
            ``'predictions'``.
        method: Whose maps are shown; by default FGD's, or else those of the first method that compares any.
        classes: Names of the classes.

    Returns:
        The figures by name.
    """
    distiller = algorithm.distiller
    image = network_image(algorithm.data_preprocessor, inputs[index])
    figures = {}
    if 'attention' in pictures or 'features' in pictures:
        losses = compared_losses(distiller, method)
        levels = compared_maps(distiller, losses)
        temperature = temperature_of(distiller, losses)
        if levels and 'attention' in pictures:
            models = {'teacher': [level.teacher for level in levels], 'student': [level.adapted for level in levels]}
            shown = {name: attention_of(maps, temperature, index) for name, maps in models.items()}
            figures['attention'] = attention_figure(image, shown)
        # Features of two widths without a connector, that a loss of its own compares, have no difference.
        if levels and 'features' in pictures and all(level.adapted.shape == level.teacher.shape for level in levels):
            pairs = [(level.adapted, level.teacher) for level in levels]
            maps = differences(pairs, VALUES, temperature, index)
            figures['features'] = differences_figure(image, {'student': maps}, VALUES)
    truth = truth_of(samples[index])
    if 'areas' in pictures and (areas := area_levels(distiller, index)):
        figures['areas'] = areas_figure(image, truth.boxes, areas)
    if 'cells' in pictures and (cells := cell_levels(distiller, index)):
        figures['cells'] = cells_figure(image, truth.boxes, cells)
    if 'predictions' in pictures and (found := found_by(algorithm, inputs, samples, index)):
        figures['predictions'] = found_figure(image, {'truth': truth, **found}, classes)
    return figures
