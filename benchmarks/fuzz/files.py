"""Files that a stranger, a full disk or a slip of the hand would leave: weights of a teacher, and training data."""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
from pathlib import Path
from typing import Any, Callable

import numpy as np
import torch
from PIL import Image

from benchmarks.fuzz.case import EITHER, FINE, WRONG

EVIDENCE = 'evidence'
"""What the file with code in it would write."""


class _Writes:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def _load(source: Path) -> dict[str, Any]:
    return torch.load(source, map_location='cpu', weights_only=False)


def _changed(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path, Path, random.Random], None]:
    def write(source: Path, target: Path, _: random.Random) -> None:
        torch.save(change(_load(source)), target)

    return write


def _weights(change: Callable[[torch.Tensor], Any]) -> Callable[[Path, Path, random.Random], None]:
    return _changed(
        lambda file: {**file, 'state_dict': {name: change(value) for name, value in file['state_dict'].items()}}
    )


def _renamed(change: Callable[[str], str]) -> Callable[[Path, Path, random.Random], None]:
    return _changed(
        lambda file: {**file, 'state_dict': {change(name): value for name, value in file['state_dict'].items()}}
    )


def _cut(source: Path, target: Path, draw: random.Random) -> None:
    content = source.read_bytes()
    target.write_bytes(content[: draw.randrange(len(content))])


def _flipped(source: Path, target: Path, draw: random.Random) -> None:
    content = bytearray(source.read_bytes())
    for _ in range(draw.randrange(1, 200)):
        content[draw.randrange(len(content))] = draw.randrange(256)
    target.write_bytes(content)


def _bytes(source: Path, target: Path, draw: random.Random) -> None:
    target.write_bytes(bytes(draw.randrange(256) for _ in range(2000)))


def _with_code(source: Path, target: Path, _: random.Random) -> None:
    torch.save({**_load(source), 'more': _Writes(target.parent / EVIDENCE)}, target)


def _pickle_with_code(source: Path, target: Path, _: random.Random) -> None:
    target.write_bytes(pickle.dumps(dict(state_dict=_Writes(target.parent / EVIDENCE))))


def _folder(source: Path, target: Path, _: random.Random) -> None:
    target.mkdir()


def _absent(source: Path, target: Path, _: random.Random) -> None:
    pass


def _single_nan(source: Path, target: Path, draw: random.Random) -> None:
    file = _load(source)
    floats = [name for name, value in file['state_dict'].items() if value.is_floating_point() and value.numel()]
    file['state_dict'][draw.choice(floats)].view(-1)[0] = draw.choice([float('nan'), float('inf')])
    torch.save(file, target)


WEIGHTS: dict[str, tuple[str, Callable[[Path, Path, random.Random], Any]]] = {
    'cut off': (WRONG, _cut),
    'bytes flipped': (EITHER, _flipped),
    'random bytes': (WRONG, _bytes),
    'empty': (WRONG, lambda source, target, _: target.write_bytes(b'')),
    'text': (WRONG, lambda source, target, _: target.write_text('weights')),
    'a folder': (WRONG, _folder),
    'absent': (WRONG, _absent),
    'a list': (WRONG, _changed(lambda file: list(file['state_dict'].values()))),
    'a tensor': (WRONG, _changed(lambda file: torch.zeros(3))),
    'a number': (WRONG, _changed(lambda file: 3)),
    'no weights': (WRONG, _changed(lambda file: dict(file, state_dict={}))),
    'a list of weights': (WRONG, _changed(lambda file: dict(file, state_dict=list(file['state_dict'])))),
    'code in it': (WRONG, _with_code),
    'a pickle with code': (WRONG, _pickle_with_code),
    'nan': (WRONG, _weights(lambda value: value * float('nan') if value.is_floating_point() else value)),
    'one number that is not finite': (WRONG, _single_nan),
    'other shapes': (WRONG, _weights(lambda value: value[:1] if value.dim() else value)),
    'other names': (WRONG, _renamed(lambda name: f'net_{name}')),
    'text for weights': (WRONG, _weights(str)),
    'half precision': (FINE, _weights(lambda value: value.half() if value.is_floating_point() else value)),
    'module.': (FINE, _renamed(lambda name: f'module.{name}')),
    'bare': (FINE, _changed(lambda file: file['state_dict'])),
    'no meta': (FINE, _changed(lambda file: dict(state_dict=file['state_dict']))),
    'other classes': (EITHER, _changed(lambda file: dict(file, meta=dict(dataset_meta=dict(classes=('a', 'b')))))),
    'strange meta': (EITHER, _changed(lambda file: dict(file, meta=['?']))),
}
"""What a file of weights may be, by a name: whether it is a mistake to use it, and what writes it from a good one."""


def _edit_boxes(change: Callable[[list[float], random.Random], list[float]]) -> Callable[[Path, random.Random], None]:
    def edit(root: Path, draw: random.Random) -> None:
        def boxes(file: dict) -> None:
            for item in file['annotations']:
                item['bbox'] = change(item['bbox'], draw)

        _edit(root, boxes)

    return edit


def _edit(root: Path, change: Callable[[dict], Any]) -> None:
    path = root / 'annotations/instances_train.json'
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def _many(root: Path, draw: random.Random) -> None:
    def change(file: dict) -> None:
        first = file['annotations'][0]
        file['annotations'] += [dict(first, id=10**6 + number, bbox=[number % 60, 5, 9, 9]) for number in range(2000)]

    _edit(root, change)


def _resized(width: int, height: int) -> Callable[[Path, random.Random], None]:
    def edit(root: Path, draw: random.Random) -> None:
        for folder in ('train', 'semantic/train'):
            for path in (root / folder).iterdir():
                Image.open(path).resize((width, height), Image.Resampling.NEAREST).save(path)

    return edit


def _labels(value: int) -> Callable[[Path, random.Random], None]:
    def edit(root: Path, draw: random.Random) -> None:
        for path in (root / 'semantic/train').iterdir():
            Image.fromarray(np.full_like(np.asarray(Image.open(path)), value)).save(path)

    return edit


def _each(folder: str, change: Callable[[Path], Any], every: int = 1) -> Callable[[Path, random.Random], None]:
    def edit(root: Path, draw: random.Random) -> None:
        for path in sorted((root / folder).iterdir())[::every]:
            change(path)

    return edit


def _write_json(text: str) -> Callable[[Path, random.Random], None]:
    return lambda root, draw: (root / 'annotations/instances_train.json').write_text(text)  # type: ignore[return-value]


_DETECTION: dict[str, tuple[str, Callable[[Path, random.Random], Any]]] = {
    'no box': (FINE, lambda root, draw: _edit(root, lambda file: file.update(annotations=[]))),
    'one box': (FINE, lambda root, draw: _edit(root, lambda file: file.update(annotations=file['annotations'][:1]))),
    'boxes without area': (FINE, _edit_boxes(lambda box, draw: [*box[:2], 0, 0])),
    'boxes beyond the image': (FINE, _edit_boxes(lambda box, draw: [box[0] + 500, box[1] - 300, *box[2:]])),
    'negative sizes': (FINE, _edit_boxes(lambda box, draw: [*box[:2], -box[2], -box[3]])),
    'huge boxes': (FINE, _edit_boxes(lambda box, draw: [-1e6, -1e6, 3e6, 3e6])),
    'boxes that are nan': (EITHER, _edit_boxes(lambda box, draw: [float('nan')] * 4)),
    'short boxes': (EITHER, _edit_boxes(lambda box, draw: box[:2])),
    'crowds': (FINE, lambda root, draw: _edit(root, lambda file: [a.update(iscrowd=1) for a in file['annotations']])),
    '2,000 boxes': (FINE, _many),
    'unknown classes': (
        EITHER,
        lambda root, draw: _edit(root, lambda file: [a.update(category_id=77) for a in file['annotations']]),
    ),
    'no image': (WRONG, lambda root, draw: _edit(root, lambda file: file.update(images=[], annotations=[]))),
    'no annotations': (EITHER, lambda root, draw: _edit(root, lambda file: file.pop('annotations'))),
    'annotations cut off': (WRONG, _write_json('{"images": [')),
    'annotations that are a list': (WRONG, _write_json('[]')),
    'annotations that are empty': (WRONG, _write_json('')),
}
_SEGMENTATION: dict[str, tuple[str, Callable[[Path, random.Random], Any]]] = {
    'all pixels ignored': (FINE, _labels(255)),
    'unknown labels': (EITHER, _labels(77)),
    'one class alone': (FINE, _labels(0)),
    'maps missing': (WRONG, _each('semantic/train', Path.unlink)),
    'maps of another size': (
        EITHER,
        _each('semantic/train', lambda path: Image.open(path).resize((31, 17), Image.Resampling.NEAREST).save(path)),
    ),
}
_BOTH: dict[str, tuple[str, Callable[[Path, random.Random], Any]]] = {
    'images of 8 x 8': (EITHER, _resized(8, 8)),
    'images of 1 x 1': (EITHER, _resized(1, 1)),
    'images of 300 x 20': (EITHER, _resized(300, 20)),
    'grey images': (FINE, _each('train', lambda path: Image.open(path).convert('L').save(path))),
    'images missing': (WRONG, _each('train', Path.unlink)),
    'images cut off': (WRONG, _each('train', lambda path: path.write_bytes(path.read_bytes()[:90]))),
    'images that are text': (WRONG, _each('train', lambda path: path.write_text('image'))),
    'no data': (WRONG, lambda root, draw: shutil.rmtree(root)),
}
DATA = {'detection': {**_DETECTION, **_BOTH}, 'segmentation': {**_SEGMENTATION, **_BOTH}}
"""What may be the matter with training data, by task and name: whether it is a mistake, and what brings it about."""
