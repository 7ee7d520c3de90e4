"""The semantic maps of COCO-Stuff, in the numbers that MMSegmentation trains with."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import mmcv
import numpy as np

from mmkd_plugin.errors import DistillError

SUFFIX = '_labelTrainIds.png'
"""How MMSegmentation's data set for COCO-Stuff calls a map, behind the name of the image."""

IGNORED = 255
_UNUSED = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)
_NO_CLASS = 254
_HINT = 'give the maps of stuffthingmaps_trainval2017.zip, or what MMSegmentation made of them.'


def _train_ids() -> np.ndarray:
    """The number of the class by the number in a map: the 182 of COCO-Stuff without the 11 that nothing has."""
    table = np.full(256, _NO_CLASS, np.uint8)
    used = np.setdiff1d(np.arange(182), _UNUSED)
    table[used] = np.arange(len(used))
    table[IGNORED] = IGNORED
    return table


def write_map(folder: Path, image: str, size: tuple[int, int], target: Path, symlink: bool = False) -> None:
    """Write the map of one image.

    Args:
        folder: The folder of its split, with ``<image>.png`` as COCO-Stuff has them, or ``<image>_labelTrainIds.png``
            as MMSegmentation's converter makes them; the latter is taken where both are there.
        image: The image's file name.
        size: Height and width that the map must have.
        target: The folder to write to.
        symlink: Whether a converted map is linked instead of copied.

    Raises:
        DistillError: If there is no map, or it is of another size or holds other numbers.
    """
    name = Path(image).with_suffix('')
    converted = folder / f'{name}{SUFFIX}'
    source = converted if converted.is_file() else folder / f'{name}.png'
    if not source.is_file():
        raise DistillError(f'The map "{source}" of the image "{image}" is not there; {_HINT}')
    values = _read(source)
    if values.shape != size:
        raise DistillError(
            f'The map "{source}" has the shape {values.shape}, but the image "{image}" is of {size}; {_HINT}'
        )
    labels = values if source == converted else _train_ids()[values]
    strange = (labels > 170) & (labels != IGNORED)
    if strange.any():
        raise DistillError(
            f'The map "{source}" holds {int(values[strange][0])}, which is no class of COCO-Stuff; {_HINT}'
        )
    path = target / f'{name}{SUFFIX}'
    path.parent.mkdir(parents=True, exist_ok=True)
    if source != converted:
        mmcv.imwrite(labels, str(path))
    elif symlink:
        path.symlink_to(source.resolve())
    else:
        shutil.copyfile(source, path)


def _read(path: Path) -> np.ndarray:
    """The numbers of a map, as MMSegmentation reads them: those of a palette stay numbers."""
    try:
        values = mmcv.imread(os.fspath(path), 'unchanged', backend='pillow')
    except (OSError, ValueError) as error:
        raise DistillError(f'The map "{path}" cannot be read ({error}); {_HINT}') from error
    return values
