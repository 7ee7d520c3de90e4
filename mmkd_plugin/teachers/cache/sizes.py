"""The size of each image in its batch: a teacher's outputs near the border depend on what the batch is padded to."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from torch import nn

from mmkd_plugin.errors import DistillError
from mmkd_plugin.teachers.cache.pipeline import Repeatable

_PREPROCESSORS = ('DetDataPreprocessor', 'SegDataPreProcessor', 'ImgDataPreprocessor')
_TURNED = (5, 6, 7, 8)
"""Values of EXIF's orientation with which height and width change places while an image is read."""
_ORIENTATION = 0x0112


class Image(NamedTuple):
    """An image of a data set.

    Attributes:
        path: Of its file.
        part: The part of the data that it belongs to.
        place: By which the data set gives it.
        size: Height and width of the file, None where the data set does not know them.
    """

    path: str
    part: str
    place: int
    size: tuple[int, int] | None


def images_of(dataset: Any, parts: Iterable[str] = ('',)) -> list[Image]:
    """The images of a data set, each once, as :func:`entries_of` gives them."""
    found: dict[tuple[str, str], Image] = {}
    for image in entries_of(dataset, parts):
        found.setdefault((image.path, image.part), image)
    return list(found.values())


def entries_of(dataset: Any, parts: Iterable[str] = ('',)) -> Iterator[Image]:
    """The images of a data set by their places, of which several may have one image.

    Args:
        dataset: As built.
        parts: The parts that have pipelines of their own.

    Raises:
        DistillError: If the data set does not tell its images.
    """
    named = set(parts)
    for part, index, info in _entries(dataset):
        height, width = info.get('height'), info.get('width')
        size = (int(height), int(width)) if height and width else None
        yield Image(str(info['img_path']), part if part in named else '', index, size)


def _entries(dataset: Any) -> Iterator[tuple[str, int, Mapping[str, Any]]]:
    """What a data set knows of each image, behind its part and its place there."""
    unlabelled = vars(dataset).get('unlabelled')
    if unlabelled is not None:
        yield from (('', index, info) for _, index, info in _entries(dataset.dataset))
        yield from (('unlabelled', -1 - index, dict(img_path=path)) for index, path in enumerate(unlabelled.paths))
        return
    tell = getattr(dataset, 'get_data_info', None)
    for index in range(len(dataset)):
        info = tell(index) if tell is not None else None
        if not isinstance(info, Mapping) or not isinstance(info.get('img_path'), str):
            raise DistillError(
                f'The teacher cache cannot list the images of {type(dataset).__name__}, whose get_data_info gives no '
                '"img_path"; derive it from BaseDataset, or set distill.teacher_cache=False.'
            )
        yield '', index, info


def require_plain_batches(preprocessor: nn.Module) -> None:
    """Refuse a preprocessor that does not do the same to a batch each time.

    Args:
        preprocessor: The student's.

    Raises:
        DistillError: Naming what is in the way.
    """
    name = type(preprocessor).__name__
    if name not in _PREPROCESSORS:
        raise DistillError(
            f'The teacher cache does not know what {name} does to a batch; use one of {", ".join(_PREPROCESSORS)} as '
            'model.data_preprocessor, or set distill.teacher_cache=False.'
        )
    for augment in _augments(preprocessor):
        if type(augment).__name__ not in ('ShrinkBatch', 'BatchFixedSizePad'):
            raise DistillError(
                f'The teacher cache needs the same image each time up to a flip, but {type(augment).__name__} among '
                'the batch_augments of model.data_preprocessor changes whole batches; take it out, or set '
                'distill.teacher_cache=False.'
            )


class Padding:
    """The size that an image has in a batch of its own.

    Args:
        pipelines: By the part of the data.
        preprocessor: The student's.
    """

    def __init__(self, pipelines: Mapping[str, Repeatable], preprocessor: nn.Module) -> None:
        self.pipelines = pipelines
        self.preprocessor = preprocessor
        self._fixed = {part: _fixed(pipeline) for part, pipeline in pipelines.items()}

    @property
    def alike(self) -> bool:
        """Whether every image has the same size, whatever its file's."""
        sizes = set(self._fixed.values())
        return len(sizes) == 1 and None not in sizes

    def of(self, image: Image) -> tuple[int, int]:
        """Height and width of an image in its batch.

        Where the pipeline does not give all the same size and the data set does not know theirs, the beginning of the
        file is read.
        """
        height, width = self._fixed[image.part] or _through(
            self.pipelines[image.part], image.size or size_on_disk(image.path)
        )
        size = getattr(self.preprocessor, 'size', None)
        divisor = getattr(self.preprocessor, 'pad_size_divisor', getattr(self.preprocessor, 'size_divisor', None)) or 1
        if size is not None:
            height, width = max(height, size[-2]), max(width, size[-1])
        else:
            height, width = (math.ceil(side / divisor) * divisor for side in (height, width))
        for augment in _augments(self.preprocessor):
            if type(augment).__name__ == 'ShrinkBatch':
                height, width = (int(side / augment.scale) for side in (height, width))
            else:
                height, width = max(height, augment.size[0]), max(width, augment.size[1])
        return height, width


def size_on_disk(path: str) -> tuple[int, int]:
    """Height and width of an image file as it will be read; its pixels are not."""
    from PIL import Image as Files

    with Files.open(path) as file:
        width, height = file.size
        turned = file.getexif().get(_ORIENTATION) in _TURNED
    return (width, height) if turned else (height, width)


def _augments(preprocessor: nn.Module) -> list[Any]:
    """The batch augmentations of a preprocessor."""
    found: Any = getattr(preprocessor, 'batch_augments', None)
    if found is None:
        return []
    # MMSegmentation keeps them in a module of its own.
    found = getattr(found, 'augments', found)
    return list(found) if isinstance(found, (list, tuple, nn.ModuleList)) else [found]


def _fixed(pipeline: Repeatable) -> tuple[int, int] | None:
    """The size that a pipeline gives to every image, None where it depends on the image."""
    # Very different shapes that come out alike; a step that bounds a size alone tells them apart.
    found = {_through(pipeline, size) for size in ((1, 4096), (4096, 1), (640, 480), (480, 640), (512, 512))}
    return next(iter(found)) if len(found) == 1 else None


def _through(pipeline: Repeatable, size: tuple[int, int]) -> tuple[int, int]:
    """What the steps of a pipeline make of a height and a width."""
    from mmcv.image.geometric import _scale_size, rescale_size

    height, width = size
    for step in pipeline.sized:
        if hasattr(step, 'keep_ratio'):
            scale = tuple(step.scale) if step.scale else _scale_size((width, height), step.scale_factor)
            width, height = rescale_size((width, height), scale) if step.keep_ratio else scale
            continue
        if step.pad_to_square:
            height = width = max(height, width)
        if step.size_divisor is not None:
            height, width = (math.ceil(side / step.size_divisor) * step.size_divisor for side in (height, width))
        elif step.size is not None:
            height, width = max(height, step.size[1]), max(width, step.size[0])
    return height, width
