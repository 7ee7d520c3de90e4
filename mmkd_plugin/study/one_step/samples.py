"""Generated images with the annotations that a config's training pipeline would bring."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Tuple, Union

import numpy as np
import torch
from mmengine.config import Config
from mmengine.structures import InstanceData, PixelData
from torch import Tensor
from torch.utils.data import Dataset

from mmkd_plugin.datasets.unlabelled import IGNORED
from mmkd_plugin.registry import DATASETS
from mmkd_plugin.study.one_step.language import WORDS, names
from mmkd_plugin.utilities.unlabelled import mark_unlabelled

OBJECTS = 3
"""Objects in an image, where no other number is asked for."""

Size = Union[int, Tuple[int, int]]
"""Side of images in pixels, or height and width."""


@DATASETS.register_module()
class GeneratedImages(Dataset):
    """Noise with objects at random places: boxes, masks and label maps as far as they are asked for.

    The second image is smaller than the first one, so that batches are padded, unless label maps are asked for alone or
    the images of the config's own batches are all of one size.

    Args:
        package: ``'mmdet'`` or ``'mmseg'``, whose data samples are made.
        size: Side of the first image in pixels, or its height and width.
        classes: Number of classes.
        masks: Whether objects have masks.
        semantic: First label of the label map and the one behind the last; None for no map.
        frames: Frames of a video clip; 0 for images.
        one_size: Whether all images have the same size.
        text: Whether the classes are named, for detectors that read them.
        length: Number of images.
        unlabelled: Whether every second image of a segmentor has no labels.
        objects: How many each image has.
    """

    def __init__(
        self,
        package: str,
        size: Size,
        classes: int,
        masks: bool = False,
        semantic: tuple[int, int] | None = None,
        frames: int = 0,
        one_size: bool = False,
        text: bool = False,
        length: int = 2,
        unlabelled: bool = False,
        objects: int = OBJECTS,
    ) -> None:
        self.package = package
        self.size = sides(size)
        self.classes = classes
        self.masks = masks
        self.semantic = semantic
        self.frames = frames
        self.one_size = one_size
        self.text = text
        self.length = length
        self.unlabelled = unlabelled
        self.objects = objects

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        random = np.random.RandomState(index)
        if self.package == 'mmseg':
            return self._segmentation(random, labelled=not (self.unlabelled and index % 2))
        whole = self.one_size or index % 2 == 0
        height, width = self.size if whole else (self.size[0] * 7 // 8, self.size[1] * 3 // 4)
        if not self.frames:
            return self._detection(random, height, width)
        return self._clip([self._detection(random, height, width) for _ in range(self.frames)])

    def _detection(self, random: np.random.RandomState, height: int, width: int) -> dict[str, Any]:
        from mmdet.structures import DetDataSample
        from mmdet.structures.mask import BitmapMasks

        boxes = _boxes(random, self.objects, height, width)
        sample = DetDataSample(metainfo=_meta(height, width))
        if self.text:
            sample.set_metainfo(dict(text=names(self.classes), custom_entities=True))
        instances = InstanceData(bboxes=torch.from_numpy(boxes).float())
        instances.labels = torch.from_numpy(random.randint(0, self.classes, self.objects))
        if self.masks:
            instances.masks = BitmapMasks(_paint(boxes, height, width), height, width)
        if self.frames:
            instances.instances_ids = torch.arange(self.objects)
        sample.gt_instances = instances
        sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
        sample.proposals = InstanceData(bboxes=torch.from_numpy(_boxes(random, 50, height, width)).float())
        if self.semantic is not None:
            sample.gt_sem_seg = PixelData(sem_seg=self._label_map(random, height, width, *self.semantic))
        image = torch.from_numpy(random.randint(0, 256, (3, height, width), dtype=np.uint8))
        return dict(inputs=image, data_samples=sample)

    def _clip(self, frames: list[dict[str, Any]]) -> dict[str, Any]:
        from mmdet.structures import TrackDataSample

        sample = TrackDataSample(metainfo=dict(key_frames_inds=[0], ref_frames_inds=list(range(1, len(frames)))))
        sample.video_data_samples = [frame['data_samples'] for frame in frames]
        return dict(inputs=torch.stack([frame['inputs'] for frame in frames]), data_samples=sample)

    def _segmentation(self, random: np.random.RandomState, labelled: bool) -> dict[str, Any]:
        from mmseg.structures import SegDataSample

        sample = SegDataSample(metainfo=_meta(*self.size))
        labels = self._label_map(random, *self.size, 0, self.classes)
        if not labelled:
            labels.fill_(IGNORED)
            mark_unlabelled(sample)
        sample.gt_sem_seg = PixelData(data=labels)
        sample.gt_edge_map = PixelData(data=(labels != labels.roll(1, -1)).long())
        image = torch.from_numpy(random.randint(0, 256, (3, *self.size), dtype=np.uint8))
        return dict(inputs=image, data_samples=sample)

    def _label_map(self, random: np.random.RandomState, height: int, width: int, first: int, end: int) -> Tensor:
        """Rectangles of random labels, ``(1, H, W)``."""
        labels = np.full((1, height, width), random.randint(first, end), np.int64)
        for mask in _paint(_boxes(random, self.objects, height, width), height, width):
            labels[:, mask > 0] = random.randint(first, end)
        return torch.from_numpy(labels)


def sides(size: Size) -> tuple[int, int]:
    """Height and width of images."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def needs(cfg: Config, package: str, size: Size) -> dict[str, Any]:
    """What a config's models and pipeline ask of generated images.

    Args:
        cfg: The config of a training.
        package: ``'mmdet'`` or ``'mmseg'``.
        size: Side of the images in pixels, or their height and width.

    Returns:
        Config of :class:`GeneratedImages`.
    """
    if package == 'mmseg':
        heads = cfg.model.get('decode_head', {})
        classes = (heads[-1] if isinstance(heads, list) else heads).get('num_classes', 2)
        some = bool((cfg.get('distill') or {}).get('unlabelled'))
        return dict(type='mmkd_plugin.GeneratedImages', package=package, size=size, classes=classes, unlabelled=some)
    counts = [node['num_classes'] for node in walk(cfg.model) if isinstance(node.get('num_classes'), int)]
    things = [node['num_things_classes'] for node in walk(cfg.model) if node.get('num_things_classes')]
    steps = list(walk(cfg.get('train_dataloader') or {}))
    panoptic = any(step.get('type') == 'LoadPanopticAnnotations' for step in steps)
    semantic = None
    if panoptic or any(step.get('with_seg') for step in steps):
        stuff = [node['num_stuff_classes'] for node in walk(cfg.model) if node.get('num_stuff_classes')]
        semantic = (things[0], things[0] + stuff[0]) if things and stuff else (0, min(counts, default=1))
    text = 'language_model' in cfg.model
    # The heads of language models have as many outputs as a text may have tokens, and the text names fewer classes.
    counts += [WORDS] if text else []
    preprocessor = cfg.model.get('data_preprocessor') or {}
    # Some trackers train their detector on single images.
    clips = str(preprocessor.get('type')) == 'TrackDataPreprocessor' and not preprocessor.get('use_det_processor')
    return dict(
        type='mmkd_plugin.GeneratedImages',
        package=package,
        size=size,
        classes=max(1, min([*counts, *things], default=1)),
        masks=panoptic or any(step.get('with_mask') for step in steps),
        semantic=semantic,
        frames=2 if clips else 0,
        one_size=any(step.get('type') == 'Resize' and step.get('keep_ratio') is False for step in steps),
        text=text,
    )


def walk(node: Any) -> Iterator[dict]:
    """Every dict inside a config, from the outermost inwards."""
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from walk(value)
    elif isinstance(node, (list, tuple)):
        for value in node:
            yield from walk(value)


def _meta(height: int, width: int) -> dict[str, Any]:
    """What the loading pipelines write about an image."""
    return dict(
        img_id=0,
        img_path='generated.png',
        img_shape=(height, width),
        ori_shape=(height, width),
        pad_shape=(height, width),
        scale_factor=(1.0, 1.0),
        flip=False,
        flip_direction=None,
        border=(0, height, 0, width),
    )


def _boxes(random: np.random.RandomState, count: int, height: int, width: int) -> np.ndarray:
    """Boxes from an eighth to five eighths of the image's sides."""
    sides = np.array([width, height])
    corner = random.uniform(0, 0.35, (count, 2)) * sides
    extent = random.uniform(0.125, 0.625, (count, 2)) * sides
    return np.hstack([corner, corner + extent])


def _paint(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """A filled rectangle for each box, ``(B, H, W)``."""
    left, top, right, bottom = (boxes[:, side, None, None] for side in range(4))
    rows, columns = np.arange(height)[None, :, None], np.arange(width)[None, None]
    return ((rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)).astype(np.uint8)
