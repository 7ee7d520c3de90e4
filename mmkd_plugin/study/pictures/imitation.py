"""The cells that FGI imitates, over the image they belong to."""

from __future__ import annotations

from pathlib import Path

from mmengine.config import Config

from mmkd_plugin.methods import FGI
from mmkd_plugin.study.pictures.canvas import save
from mmkd_plugin.study.pictures.training_image import in_a_step, training_item, with_one_method
from mmkd_plugin.views.cells import Level, cell_levels, cells_figure

_RECIPES = (
    '"mmkd_plugin::_base_/fgi/one_stage.py" or, for detectors with an RPN, "mmkd_plugin::_base_/fgi/two_stage.py"'
)


def imitation_picture(config: Config, index: int, out: Path) -> Path:
    """Draw a training image and, level by level, the cells that FGI would imitate on it.

    The masks are those of a training step with the block's own options and the student's own anchors. They depend on no
    weights, so that neither model's are read.

    Args:
        config: With an FGI method in its ``distill`` block; gives the training data too.
        index: Of the training image.
        out: PNG to write.

    Returns:
        The path written.

    Raises:
        DistillError: If the block has no FGI, or the data no such image.
    """
    # What the block lacks is said before any data is read.
    expanded = with_one_method(config, FGI, _RECIPES)
    return save(cells_figure(*in_a_step(expanded, training_item(config, index), cell_levels)), out)


def imitation_levels(config: Config, item: dict) -> list[Level]:
    """The levels of FGI for one item of a data set.

    Args:
        config: With an FGI method in its ``distill`` block.
        item: As the data set gives it.

    Raises:
        DistillError: If the block has no FGI.
    """
    return in_a_step(with_one_method(config, FGI, _RECIPES), item, cell_levels)[2]
