"""The stock model of a config."""

from __future__ import annotations

from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import init_default_scope

from mmkd_plugin.compat.checkpoint import build_safely
from mmkd_plugin.errors import DistillError
from mmkd_plugin.teachers import model_config
from mmkd_plugin.utilities.rng import isolated_rng


def build_stock_model(config: Config) -> BaseModel:
    """Build the model of a config; where it has a ``distill`` block, or is one that it stands for, the student.

    Args:
        config: With a ``model``.

    Returns:
        The model, without trained weights.

    Raises:
        DistillError: If the config has none, or it cannot be built.
    """
    if config.get('model') is None:
        raise DistillError('The config holds no "model"; give a config that describes a detector or segmentor.')
    init_default_scope(config.get('default_scope', 'mmengine'))
    model = model_config(config)
    try:
        with isolated_rng():
            return build_safely(model)
    except Exception as error:
        # The first sentence; MMEngine goes on with advice on registries.
        reason = (str(error) or type(error).__name__).splitlines()[0].split('. ')[0].strip('"\'.')
        raise DistillError(
            f'The model of type "{model.get("type")}" cannot be built ({reason}); correct the config.'
        ) from error
