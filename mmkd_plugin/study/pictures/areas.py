"""The areas that FGD tells apart, over the image they belong to."""

from __future__ import annotations

from pathlib import Path

from mmengine.config import Config

from mmkd_plugin.methods import FGD
from mmkd_plugin.study.pictures.canvas import save
from mmkd_plugin.study.pictures.training_image import in_a_step, training_item, with_one_method
from mmkd_plugin.views.areas import area_levels, areas_figure

_RECIPES = (
    '"mmkd_plugin::_base_/fgd/one_stage.py" or, for detectors with an RPN, "mmkd_plugin::_base_/fgd/two_stage.py"'
)


def areas_picture(config: Config, index: int, out: Path) -> Path:
    """Draw a training image and, level by level, FGD's foreground, its background and what each cell weighs.

    The masks are those of a training step with the block's own options. They depend on no weights, so that neither
    model's are read.

    Args:
        config: With an FGD method in its ``distill`` block; gives the training data too.
        index: Of the training image.
        out: PNG to write.

    Returns:
        The path written.

    Raises:
        DistillError: If the block has no FGD, or the data no such image.
    """
    # What the block lacks is said before any data is read.
    expanded = with_one_method(config, FGD, _RECIPES)
    return save(areas_figure(*in_a_step(expanded, training_item(config, index), area_levels)), out)
