"""Whether a training pipeline does the same to an image each time, up to a flip; what is in the way is named."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from mmengine.registry import TRANSFORMS as ROOT_TRANSFORMS

from mmkd_plugin.errors import DistillError
from mmkd_plugin.utilities.record_key import DIRECTIONS

_HOUSES = ('mmcv', 'mmdet', 'mmseg', 'mmkd_plugin')
_OF_IMAGES = ('LoadImageFromFile', 'Resize', 'Pad', 'Normalize')
"""What changes an image in the same way each time."""
_OF_LABELS = (
    'LoadAnnotations',
    'LoadEmptyAnnotations',
    'LoadPanopticAnnotations',
    'LoadProposals',
    'NoLabels',
    'FilterAnnotations',
    'RecordKey',
)
"""What leaves the image alone."""
_PACKS = ('PackDetInputs', 'PackSegInputs')
_FLIP = 'RandomFlip'
_SIZES = ('RandomResize', 'RandomChoiceResize', 'ResizeShortestEdge', 'RandomCrop', 'RandomResizedCrop')
_WRAPPERS = ('ConcatDataset', 'RepeatDataset', 'ClassBalancedDataset', 'MixedDataset')
_OFF = 'or set distill.teacher_cache=False'


@dataclasses.dataclass(frozen=True)
class Repeatable:
    """A pipeline that gives the same image each time, up to a flip.

    Attributes:
        steps: Configs of the steps that the image goes through, as a fingerprint takes them.
        flips: How the image may be flipped: directions, and the empty text for not at all.
        sized: The built steps that change an image's size, in their order.
    """

    steps: tuple[Any, ...]
    flips: tuple[str, ...]
    sized: tuple[Any, ...] = dataclasses.field(default=(), compare=False)


def require_repeatable(dataset: Any, own: Sequence[str] = ()) -> dict[str, Repeatable]:
    """Check the pipelines of a data set.

    Args:
        dataset: Its config, with whatever is wrapped around it.
        own: Types of further transforms of which the user says that they do the same to an image each time.

    Returns:
        The pipelines by the part of the data: the labelled images under the empty name and, where theirs differs, the
        images without labels under ``'unlabelled'``.

    Raises:
        DistillError: Naming the transform or the data set that is in the way, and what to do.
    """
    found: dict[str, Repeatable] = {}
    for part, config in _leaves(dataset):
        one = _checked(config['pipeline'], own)
        if found.setdefault(part, one) != one:
            raise DistillError(
                'The teacher cache needs one pipeline for all images, but the data sets of train_dataloader have '
                f'several; give all of them the same steps for the image, {_OFF}.'
            )
    if found.get('unlabelled') == found['']:
        del found['unlabelled']
    return found


def with_record_keys(dataset: Any, parts: Sequence[str]) -> Any:
    """The same data set with a last step in its pipelines that tells images apart.

    Args:
        dataset: Its config, which :func:`require_repeatable` has checked; it is left as it is.
        parts: The parts that have pipelines of their own.
    """
    marked = copy.deepcopy(dataset)
    for part, config in _leaves(marked):
        key = dict(type='mmkd_plugin.RecordKey', **(dict(part=part) if part in parts and part else {}))
        config['pipeline'] = [*config['pipeline'], key]
    return marked


def turn(dataset: Any, direction: str) -> None:
    """Let a built data set flip every image in one direction, or none where that is empty."""
    for pipeline in _pipelines(dataset):
        for step in pipeline.transforms:
            if type(step).__name__ == _FLIP:
                step.prob, step.direction = (1.0, direction) if direction else (0.0, DIRECTIONS[0])


def _pipelines(dataset: Any) -> Iterator[Any]:
    """The pipelines of a built data set."""
    inside = vars(dataset)
    inner = [inside[name] for name in ('dataset', 'unlabelled') if name in inside] + list(inside.get('datasets', ()))
    for item in inner:
        yield from _pipelines(item)
    if not inner:
        yield dataset.pipeline


def _leaves(dataset: Any, part: str = '') -> Iterator[tuple[str, dict]]:
    """The data sets that read images, each behind the part that it belongs to."""
    for item in dataset if isinstance(dataset, (list, tuple)) else [dataset]:
        if not isinstance(item, dict):
            raise DistillError(
                'The teacher cache reads the pipeline from train_dataloader.dataset, which must be a config, a dict '
                f'with a "pipeline"; write it so, {_OFF}.'
            )
        kind = item.get('type')
        name = (kind if isinstance(kind, str) else getattr(kind, '__name__', '')).split('.')[-1]
        inner = item.get('dataset', item.get('datasets'))
        if inner is None:
            if not isinstance(item.get('pipeline'), (list, tuple)):
                raise DistillError(
                    f'The teacher cache finds no pipeline in {name or "the data set"}, so nothing tells whether its '
                    f'images are the same each time; give it a "pipeline", {_OFF}.'
                )
            yield part, item
            continue
        if name not in _WRAPPERS:
            raise DistillError(
                f'The teacher cache needs the same image each time, but {name} makes its images in a way of its own, '
                f'such as from several; train from the data set inside it, {_OFF}.'
            )
        yield from _leaves(inner, part)
        if 'unlabelled' in item:
            yield from _leaves(item['unlabelled'], 'unlabelled')


def _checked(pipeline: Sequence[Any], own: Sequence[str]) -> Repeatable:
    """One pipeline."""
    steps: list[Any] = []
    sized: list[Any] = []
    flips: tuple[str, ...] | None = None
    packed = None
    for config in pipeline:
        kind = _class_of(config, config)
        name = kind.__name__
        known = kind.__module__.split('.')[0] in _HOUSES
        if known and name in _OF_LABELS:
            continue
        if known and name in _PACKS:
            packed = config
        elif known and name == _FLIP:
            if flips is not None:
                raise DistillError(
                    'The teacher cache cannot tell how an image was flipped by two RandomFlip, of which samples keep '
                    f'the last; merge them into one with a list of directions, {_OFF}.'
                )
            flips = _directions(_built(config))
            # Where the flip stands matters, how often it happens does not.
            steps.append(dict(type=f'{kind.__module__}.{name}'))
        elif known and name in _OF_IMAGES or name in own:
            built = _built(config)
            steps.append({**config, 'type': f'{kind.__module__}.{kind.__qualname__}'})
            if known and name in ('Resize', 'Pad'):
                sized.append(built)
        else:
            _refuse(name)
    _require_told(packed, flips)
    return Repeatable(tuple(steps), flips or ('',), tuple(sized))


def _refuse(name: str) -> None:
    """Say what is in the way."""
    instead = (
        "put dict(type='Resize', scale=..., keep_ratio=...) in its place"
        if name in _SIZES
        else 'take it out, list it in distill.teacher_cache.repeatable where it does the same to an image each time'
    )
    raise DistillError(
        f'The teacher cache needs the same image each time up to a flip, but {name} in the train pipeline is not '
        f'known to give it; {instead}, {_OFF}.'
    )


def _require_told(packed: Any, flips: tuple[str, ...] | None) -> None:
    """Refuse samples that do not say which image they show."""
    if packed is None:
        raise DistillError(
            'The teacher cache finds neither PackDetInputs nor PackSegInputs in the train pipeline, by whose samples '
            f'it tells images apart; end the pipeline with one of them, {_OFF}.'
        )
    wanted = ('img_path', *(('flip', 'flip_direction') if flips is not None else ()))
    keys = packed.get('meta_keys')
    missing = [] if keys is None else [key for key in wanted if key not in keys]
    if missing:
        raise DistillError(
            f'The teacher cache tells images apart by "{missing[0]}", which the meta_keys of the train pipeline leave '
            'out; add it to them.'
        )


def _directions(flip: Any) -> tuple[str, ...]:
    """How a RandomFlip may leave an image."""
    directions = [flip.direction] if isinstance(flip.direction, str) else list(flip.direction)
    chances = flip.prob if isinstance(flip.prob, (list, tuple)) else [flip.prob / len(directions)] * len(directions)
    happens = {direction for direction, chance in zip(directions, chances) if chance > 0}
    stays = [''] if sum(chances) < 1 - 1e-6 else []
    return (*stays, *(direction for direction in DIRECTIONS if direction in happens))


def _class_of(config: Any, scope: Any) -> Any:
    """The class of a transform."""
    kind = config.get('type') if isinstance(config, dict) else None
    if isinstance(kind, type):
        return kind
    with ROOT_TRANSFORMS.switch_scope_and_registry(scope.get('_scope_') if isinstance(scope, dict) else None) as known:
        found = known.get(kind) if isinstance(kind, str) else None
    if found is None:
        raise DistillError(
            f'The train pipeline names the transform {kind!r}, which is not registered; correct its "type".'
        )
    return found


def _built(config: Any) -> Any:
    """A transform as the data set builds it."""
    return ROOT_TRANSFORMS.build(copy.deepcopy(config))
