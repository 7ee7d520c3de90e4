"""A trained model with its convolutions factored: which layers, by which ranks, and the config that builds it."""

from __future__ import annotations

import copy
import dataclasses
import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from torch import nn

from mmkd_plugin.errors import DistillError, nearest
from mmkd_plugin.models.factored import Ranks, factor_layers, obstacle
from mmkd_plugin.probe.anatomy import task_of
from mmkd_plugin.study.complexity import Complexity, complexity
from mmkd_plugin.study.factored_config import factored_config, image_size, plain_config
from mmkd_plugin.study.factors import automatic_ranks, fill
from mmkd_plugin.study.pictures.canvas import build_model, load_weights

BACKBONE = ('backbone.*', '*.backbone.*')
"""Where layers are factored if nothing else is said; convolutions alone."""


@dataclasses.dataclass(frozen=True)
class LayerReport:
    """A layer that was factored.

    Attributes:
        name: Its path in the model.
        form: Such as ``'conv 3 x 3'``.
        channels: Of input and output.
        ranks: As the config gives them.
        error: The distance of the product from the weight, in the weight's norm.
        before: Parameters of the layer.
        after: Parameters of the product.
    """

    name: str
    form: str
    channels: tuple[int, int]
    ranks: Ranks
    error: float
    before: int
    after: int


@dataclasses.dataclass(frozen=True)
class Compressed:
    """A compressed model.

    Attributes:
        config: Builds it; without a distill block.
        model: The model, in evaluation mode.
        layers: What was factored.
        left: Why the other layers that were looked at stay, by path.
        before: Of the model that was given.
        after: Of the compressed one.
        image: Height and width of the image that operations were counted on.
    """

    config: Config
    model: BaseModel
    layers: list[LayerReport]
    left: dict[str, str]
    before: Complexity
    after: Complexity
    image: tuple[int, int]


def compress(
    config: Config,
    checkpoint: str,
    ranks: str | float | None = 'vbmf',
    own: Mapping[str, Ranks] | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    image: tuple[int, int] | None = None,
) -> Compressed:
    """Factor layers of a trained model.

    Args:
        config: With a ``model``; a distill block is left out.
        checkpoint: Path, address or zoo name of its weights.
        ranks: ``'vbmf'``, a share of the channels, or None to factor the layers of ``own`` alone.
        own: Ranks of single layers by path, which go before.
        include: Patterns of the layers to factor, also of fully-connected ones; the convolutions of the backbone by
            default.
        exclude: Patterns of layers to leave.
        image: Height and width of the image that operations are counted on; that of the test pipeline by default.

    Returns:
        The compressed model, its config and what was done.

    Raises:
        DistillError: If the checkpoint does not fill the model, a pattern or a path matches no layer, a rank does not
            fit, or nothing becomes smaller.
    """
    plain = plain_config(config)
    image = image or image_size(plain)
    if min(image) < 1:
        raise DistillError(f'--size takes the height and width of an image, such as 600 1000, but it is {image}.')
    model = build_model(plain)
    load_weights(model, checkpoint)
    own = dict(own or {})
    if own:
        # Refuses what does not fit, before anything takes long.
        factor_layers(copy.deepcopy(model), own)
    chosen, left = choose(model, own, include, exclude, ranks is not None)
    wanted = _ranks(chosen, left, ranks, own)
    if not wanted:
        raise DistillError(
            f'No layer of {type(model).__name__} becomes smaller with --ranks {ranks} ({_reasons(left)}); give a '
            'smaller share, ranks of single layers, or other layers with --include.'
        )
    written = factored_config(plain, model, wanted)
    smaller = build_model(written)
    errors = _fill(smaller, model, wanted)
    batch = _noise(model, image)
    return Compressed(
        config=written,
        model=smaller,
        layers=[
            LayerReport(
                name=name,
                form=_form(chosen[name]),
                channels=_channels(chosen[name]),
                ranks=rank,
                error=errors[name],
                before=_count(chosen[name]),
                after=_count(smaller.get_submodule(name)),
            )
            for name, rank in wanted.items()
        ],
        left=left,
        before=complexity(model, batch),
        after=complexity(smaller, batch),
        image=image,
    )


def choose(
    model: nn.Module, own: Mapping[str, Ranks], include: Sequence[str], exclude: Sequence[str], more: bool
) -> tuple[dict[str, nn.Module], dict[str, str]]:
    """Which layers are factored.

    Args:
        model: Any model.
        own: Layers that are named one by one.
        include: Patterns; empty for the convolutions of the backbone.
        exclude: Patterns.
        more: Whether patterns count at all, besides ``own``.

    Returns:
        The layers by path, and why others that match stay.

    Raises:
        DistillError: If a pattern matches no layer, or nothing can be factored.
    """
    layers = dict(_layers(model))
    for option, patterns in (('--include', include), ('--exclude', exclude)):
        for pattern in patterns:
            if not fnmatch.filter(layers, pattern):
                raise DistillError(
                    f'{option} {pattern} matches no convolution or fully-connected layer of {type(model).__name__}; '
                    f'patterns are whole paths such as "backbone.*", and {nearest(pattern, layers)}'
                )
    chosen: dict[str, nn.Module] = {}
    left: dict[str, str] = {}
    for name, (layer, problem) in layers.items():
        if name in own:
            if problem:
                raise DistillError(f'"{name}" cannot be factored, since it is {problem}; leave it out of --ranks.')
            chosen[name] = layer
        elif not more or not _matches(name, include or BACKBONE):
            continue
        elif _matches(name, exclude):
            left[name] = 'excluded'
        elif problem:
            left[name] = problem
        elif not include and isinstance(layer, nn.Linear):
            left[name] = 'fully connected; name it with --include'
        else:
            chosen[name] = layer
    if not chosen:
        raise DistillError(
            f'{type(model).__name__} has nothing to factor among {", ".join(include or BACKBONE[:1])} '
            f'({_reasons(left)}); name other layers with --include.'
        )
    return chosen, left


def _ranks(
    chosen: Mapping[str, nn.Module], left: dict[str, str], rule: str | float | None, own: Mapping[str, Ranks]
) -> dict[str, Ranks]:
    """The ranks of the layers that become smaller; the others join those that are left."""
    wanted: dict[str, Ranks] = {}
    for name, layer in chosen.items():
        found = own[name] if name in own or rule is None else automatic_ranks(layer, rule)
        if found is None:
            left[name] = f'would not be smaller with --ranks {rule}'
        else:
            wanted[name] = found
    return wanted


def _layers(model: nn.Module) -> Iterator[tuple[str, tuple[nn.Module, str]]]:
    """Convolutions and fully-connected layers with what keeps them from being factored."""
    paths: dict[int, int] = {}
    for _, module in model.named_modules(remove_duplicate=False):
        paths[id(module)] = paths.get(id(module), 0) + 1
    within: list[str] = []
    for name, module in model.named_modules():
        problem = obstacle(module)
        if problem is None or any(name.startswith(f'{outer}.') for outer in within):
            continue
        if problem:
            # What a deformable convolution finds its offsets with belongs to it.
            within.append(name)
        elif paths[id(module)] > 1:
            problem = 'shared by several parts'
        yield name, (module, problem)


def _fill(smaller: nn.Module, model: nn.Module, ranks: Mapping[str, Ranks]) -> dict[str, float]:
    """Give a factored model the weights of its original; the error of each factored layer."""
    products = tuple(f'{name}.' for name in ranks)
    state = {key: value for key, value in model.state_dict().items() if not key.startswith(products)}
    state.update({key: value for key, value in smaller.state_dict().items() if key.startswith(products)})
    smaller.load_state_dict(state, strict=True)
    return {name: fill(smaller.get_submodule(name), model.get_submodule(name)) for name in ranks}


def _noise(model: BaseModel, image: tuple[int, int]) -> dict[str, Any]:
    """One image of noise as a data set gives it."""
    if task_of(model) == 'segmentation':
        from mmseg.structures import SegDataSample as Sample
    else:
        from mmdet.structures import DetDataSample as Sample
    meta = dict(img_shape=image, ori_shape=image, pad_shape=image, scale_factor=(1.0, 1.0), flip=False, img_id=0)
    pixels = torch.randint(0, 256, (3, *image), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return dict(inputs=[pixels], data_samples=[Sample(metainfo=meta)])


def _reasons(left: Mapping[str, str]) -> str:
    kinds = list(dict.fromkeys(left.values()))
    return '; '.join(f'{sum(value == kind for value in left.values())} {kind}' for kind in kinds) or 'none matches'


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _form(layer: nn.Module) -> str:
    return f'conv {" x ".join(map(str, layer.kernel_size))}' if isinstance(layer, nn.Conv2d) else 'fully connected'


def _channels(layer: nn.Module) -> tuple[int, int]:
    if isinstance(layer, nn.Conv2d):
        return layer.in_channels, layer.out_channels
    assert isinstance(layer, nn.Linear)
    return layer.in_features, layer.out_features


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
