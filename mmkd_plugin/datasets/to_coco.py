"""KITTI and ILSVRC-DET as COCO files, since MMDetection reads neither; images stay where they are."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from PIL import Image

from mmkd_plugin.errors import DistillError

KITTI_CLASSES = ('Car', 'Pedestrian', 'Cyclist')
"""Those of KITTI's benchmark."""
KITTI_LIKE = {'Van': 'Car', 'Person_sitting': 'Pedestrian'}
"""What looks like a class without being one: as in the benchmark, a detection there is neither right nor wrong."""


def convert_kitti(root: Path, out: Path, validation: Iterable[str] | None = None) -> dict[str, int]:
    """Write ``kitti_train.json`` and ``kitti_val.json`` for the labelled images of KITTI's object benchmark.

    Args:
        root: With ``training/image_2/*.png`` and ``training/label_2/*.txt``.
        out: Folder of the two files.
        validation: Names of the validation images without their ending; every second image by default.

    Returns:
        The number of images of both.

    Raises:
        DistillError: If the tree or a label file is not KITTI's.
    """
    labels = sorted((root / 'training/label_2').glob('*.txt'))
    if not labels:
        raise DistillError(
            f'"{root}" holds no training/label_2/*.txt; unpack data_object_label_2.zip and ..._image_2.zip there.'
        )
    held_out = {path.stem for path in labels[1::2]} if validation is None else set(validation)
    unknown = sorted(held_out - {path.stem for path in labels})
    if unknown:
        raise DistillError(
            f'The validation image "{unknown[0]}" has no label file in "{labels[0].parent}"; correct the list.'
        )
    counts = {}
    for split in ('train', 'val'):
        chosen = [path for path in labels if (path.stem in held_out) is (split == 'val')]
        samples = ((root / f'training/image_2/{path.stem}.png', list(_kitti_boxes(path))) for path in chosen)
        counts[split] = _write(out / f'kitti_{split}.json', root, samples, KITTI_CLASSES)
    return counts


def convert_ilsvrc_det(root: Path, out: Path, names: Path | None = None) -> dict[str, int]:
    """Write ``ilsvrc_det_train.json`` and ``ilsvrc_det_val.json`` for the 200 classes of ILSVRC-DET.

    ``ilsvrc_det_classes.txt`` beside them has the name of a class in each line, for the ``metainfo`` of a data set.

    Args:
        root: The folder ``ILSVRC`` with ``Annotations/DET`` and ``Data/DET``.
        out: Folder of the two files.
        names: ``map_det.txt`` of the development kit, whose lines are WordNet id, number and name; without it classes
            are called by their WordNet ids.

    Returns:
        The number of images of both.

    Raises:
        DistillError: If the tree is not ILSVRC's, or an annotation names a class that ``names`` lacks.
    """
    known = dict(_names(names)) if names else {}
    found = {}
    for split in ('train', 'val'):
        files = sorted((root / 'Annotations/DET' / split).rglob('*.xml'))
        if not files:
            raise DistillError(f'"{root}" holds no Annotations/DET/{split}/**/*.xml; give the folder ILSVRC itself.')
        found[split] = [(path, list(_ilsvrc_boxes(path))) for path in files]
    ids = sorted({name for samples in found.values() for _, boxes in samples for name, _, _ in boxes} | set(known))
    strangers = [name for name in ids if known and name not in known]
    if strangers:
        raise DistillError(f'"{names}" does not name the class "{strangers[0]}"; give the map_det.txt of these data.')
    classes = [known.get(name, name) for name in ids]
    called = dict(zip(ids, classes))
    out.mkdir(parents=True, exist_ok=True)
    (out / 'ilsvrc_det_classes.txt').write_text('\n'.join(classes) + '\n', encoding='utf-8')
    counts = {}
    for split, samples in found.items():
        images = (
            (
                (root / 'Data' / path.relative_to(root / 'Annotations')).with_suffix('.JPEG'),
                [(called[name], box, ignored) for name, box, ignored in boxes],
            )
            for path, boxes in samples
        )
        counts[split] = _write(out / f'ilsvrc_det_{split}.json', root, images, classes)
    return counts


def _kitti_boxes(path: Path) -> Iterator[tuple[str, list[float], bool]]:
    """Class, ``x1 y1 x2 y2`` in pixels and whether it is to be ignored."""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        fields = line.split()
        if not fields:
            continue
        try:
            name, box = fields[0], [float(value) for value in fields[4:8]]
            _, _, _, _ = box
        except ValueError as error:
            raise DistillError(
                f'Line {number} of "{path}" is no label of KITTI (type, three numbers, the four of a box, ...); unpack '
                'data_object_label_2.zip again.'
            ) from error
        if name in KITTI_CLASSES or name in KITTI_LIKE:
            yield KITTI_LIKE.get(name, name), box, name in KITTI_LIKE
        elif name == 'DontCare':
            for each in KITTI_CLASSES:
                yield each, box, True


def _ilsvrc_boxes(path: Path) -> Iterator[tuple[str, list[float], bool]]:
    """WordNet id, ``x1 y1 x2 y2`` in pixels and False."""
    try:
        for item in ElementTree.parse(path).getroot().iter('object'):
            box = item.find('bndbox')
            name = item.findtext('name')
            if box is None or name is None:
                raise ValueError('an object without a name or a box')
            yield name, [float(box.findtext(key) or 'none') for key in ('xmin', 'ymin', 'xmax', 'ymax')], False
    except (ElementTree.ParseError, ValueError) as error:
        raise DistillError(f'"{path}" is no annotation of ILSVRC ({error}); unpack it again.') from error


def _names(path: Path) -> Iterator[tuple[str, str]]:
    for line in path.read_text().splitlines():
        fields = line.split(maxsplit=2)
        if len(fields) == 3:
            yield fields[0], fields[2]


def _write(
    target: Path,
    root: Path,
    samples: Iterable[tuple[Path, list[tuple[str, list[float], bool]]]],
    classes: Iterable[str],
) -> int:
    """Write one COCO file.

    Returns:
        The number of its images.
    """
    names = list(classes)
    numbers = {name: number for number, name in enumerate(names, 1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for path, boxes in samples:
        if not path.is_file():
            raise DistillError(f'The image "{path}" is missing beside its annotation; unpack the images as well.')
        with Image.open(path) as image:
            width, height = image.size
        images.append(dict(id=len(images), file_name=path.relative_to(root).as_posix(), width=width, height=height))
        for name, (x1, y1, x2, y2), ignored in boxes:
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=images[-1]['id'],
                    category_id=numbers[name],
                    bbox=[x1, y1, x2 - x1, y2 - y1],
                    area=(x2 - x1) * (y2 - y1),
                    iscrowd=int(ignored),
                )
            )
    categories = [dict(id=number, name=name) for name, number in numbers.items()]
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(dict(images=images, annotations=annotations, categories=categories)))
    return len(images)
