"""Choose a small, class-balanced part of a data set in COCO's format."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from rich.progress import track

from mmkd_plugin.datasets.coco_mini.annotation import json_bytes
from mmkd_plugin.datasets.coco_mini.folder import ensure_folder
from mmkd_plugin.datasets.coco_mini.prng import Stream
from mmkd_plugin.datasets.coco_mini.stuff import write_map
from mmkd_plugin.errors import DistillError, nearest

_VERSION = 'subset 1'


@dataclass(frozen=True)
class CocoSplit:
    """Where one split of the source lies.

    Attributes:
        annotations: The annotation file.
        images: The folder that the file's image names are relative to.
        count: How many images to choose.
        maps: The folder of their semantic maps; none are written if None.
    """

    annotations: Path
    images: Path
    count: int
    maps: Path | None = None


def coco_split(root: Path, name: str, count: int, maps: str | None = None) -> CocoSplit:
    """Locate a split of a tree laid out as COCO's: ``annotations/instances_<name>.json`` and ``<name>/``.

    Args:
        root: The tree.
        name: The split, such as ``train2017``.
        count: How many images to choose.
        maps: Folder below the tree whose ``<name>/`` holds the semantic maps; none are written if None.

    Returns:
        Where it lies.
    """
    folder = None if maps is None else root / maps / name
    return CocoSplit(root / 'annotations' / f'instances_{name}.json', root / name, count, folder)


def _load(split: CocoSplit) -> dict[str, Any]:
    if not split.annotations.is_file():
        raise DistillError(
            f'The annotation file is expected at "{split.annotations}" but is not there; a COCO tree holds '
            'annotations/instances_<split>.json and a folder <split> of images.'
        )
    if not split.images.is_dir():
        raise DistillError(
            f'The images of "{split.annotations}" are expected in the folder "{split.images}" but it is not there.'
        )
    if split.maps is not None and not split.maps.is_dir():
        raise DistillError(
            f'The semantic maps of "{split.images}" are expected in the folder "{split.maps}" but it is not there; '
            'unpack stuffthingmaps_trainval2017.zip of COCO-Stuff, or leave the maps out.'
        )
    try:
        content = json.loads(split.annotations.read_bytes())
    except ValueError as error:
        raise DistillError(f'"{split.annotations}" is not a complete JSON file ({error}); fetch it again.') from error
    missing = [key for key in ('images', 'annotations', 'categories') if key not in content]
    if missing:
        raise DistillError(f'"{split.annotations}" has no "{missing[0]}"; COCO\'s instances_<split>.json is expected.')
    return content


def _categories(content: dict[str, Any], classes: Sequence[str] | None) -> list[dict[str, Any]]:
    """The chosen categories in the order of the file."""
    if classes is None:
        return content['categories']
    names = [category['name'] for category in content['categories']]
    for name in classes:
        if name not in names:
            raise DistillError(f'"{name}" is not a class of the data set: {nearest(name, names)}')
    return [category for category in content['categories'] if category['name'] in classes]


def choose_images(content: dict[str, Any], categories: set[int], count: int, seed: int) -> list[int]:
    """Choose images so that each class is seen in about as many of them.

    Over and over, the class that fewest of the chosen images show gets one more image. Crowds do not count. The
    choice depends on the seed and the ids alone, not on the order in the file.

    Args:
        content: An annotation file.
        categories: Ids of the classes.
        count: How many images; all that show one of the classes if there are no more.
        seed: Other seeds choose other images.

    Returns:
        Sorted ids.
    """
    shown: dict[int, set[int]] = {}
    for entry in content['annotations']:
        if entry['category_id'] in categories and not entry.get('iscrowd', 0):
            shown.setdefault(entry['image_id'], set()).add(entry['category_id'])
    order = Stream(seed).shuffled(sorted(shown))
    totals = dict.fromkeys(sorted(categories), 0)
    waiting: dict[int, list[int]] = {category: [] for category in totals}
    for image in order:
        for category in shown[image]:
            waiting[category].append(image)
    chosen: set[int] = set()
    while len(chosen) < min(count, len(order)):
        rarest = min((category for category in totals if waiting[category]), key=lambda category: totals[category])
        image = waiting[rarest].pop()
        if image not in chosen:
            chosen.add(image)
            for category in shown[image]:
                totals[category] += 1
    return sorted(chosen)


def _image_name(image: dict[str, Any], split: CocoSplit) -> str:
    """The image's name, once it is sure that it stays inside the folder and is there."""
    name = image['file_name']
    path = PurePosixPath(name)
    if path.is_absolute() or '..' in path.parts or '\\' in name or ':' in name:
        raise DistillError(f'"{split.annotations}" names an image outside its folder ("{name}"); correct the file.')
    if not (split.images / name).is_file():
        raise DistillError(
            f'The image "{split.images / name}", which "{split.annotations}" names, is not there; complete the data '
            'set or give the folder of the images.'
        )
    return name


def _select(
    content: dict[str, Any], split: CocoSplit, classes: Sequence[str] | None, seed: int, taken: set[int]
) -> dict[str, Any]:
    """The annotation file of the chosen images; ids, crowds and all other entries stay as they are."""
    categories = _categories(content, classes)
    ids = {category['id'] for category in categories}
    rest = [entry for entry in content['annotations'] if entry['image_id'] not in taken]
    chosen = set(choose_images({'annotations': rest}, ids, split.count, seed))
    if len(chosen) < split.count:
        raise DistillError(
            f'"{split.annotations}" has {len(chosen)} images that show the chosen classes and are still free, but '
            f'{split.count} were asked for; ask for fewer.'
        )
    return {
        'info': content.get('info', {}),
        'licenses': content.get('licenses', []),
        'images': [image for image in content['images'] if image['id'] in chosen],
        'annotations': [
            entry for entry in content['annotations'] if entry['image_id'] in chosen and entry['category_id'] in ids
        ],
        'categories': categories,
    }


def _build(
    root: Path,
    splits: dict[str, CocoSplit],
    seed: int,
    classes: Sequence[str] | None,
    symlink: bool,
    report: Callable[[str], None],
) -> None:
    taken: dict[Path, set[int]] = {}
    (root / 'annotations').mkdir()
    for name, split in splits.items():
        used = taken.setdefault(split.annotations, set())
        content = _select(_load(split), split, classes, seed, used)
        used.update(image['id'] for image in content['images'])
        names = [_image_name(image, split) for image in content['images']]
        for image in track(names, name, disable=not sys.stdout.isatty()):
            target = root / name / image
            target.parent.mkdir(parents=True, exist_ok=True)
            if symlink:
                target.symlink_to((split.images / image).resolve())
            else:
                shutil.copyfile(split.images / image, target)
        if split.maps is not None:
            for image in track(content['images'], f'{name} maps', disable=not sys.stdout.isatty()):
                size = (image['height'], image['width'])
                write_map(split.maps, image['file_name'], size, root / 'semantic' / name, symlink)
        (root / 'annotations' / f'instances_{name}.json').write_bytes(json_bytes(content))
    report('classes: ' + repr(tuple(category['name'] for category in content['categories'])))


def ensure_coco_subset(
    root: str | Path,
    train: CocoSplit,
    val: CocoSplit,
    seed: int = 0,
    classes: Sequence[str] | None = None,
    symlink: bool = False,
    report: Callable[[str], None] = print,
) -> Path:
    """Make a COCO-mini out of a real COCO tree, unless it is there already.

    The folder is laid out like that of ``ensure_coco_mini``. Ids, sizes, masks and crowds stay as they are; only chosen
    images and classes are left. Each image shows at least one chosen class. Where both splits are taken from one file,
    they share no image. Semantic maps, where they are asked for, have the 171 classes of COCO-Stuff, whatever classes
    are chosen.

    Args:
        root: The folder to make.
        train: Source of the training images.
        val: Source of the validation images.
        seed: Other seeds choose other images.
        classes: Names of the classes to keep; all if None. Their order stays that of the file.
        symlink: Link the images instead of copying them.
        report: Takes the lines for the user; the last one names the classes for the config.

    Returns:
        The folder.

    Raises:
        DistillError: If a file, a folder, an image, a map or a class is not there, there are fewer images than asked
            for, or the folder holds something else.
    """
    splits = {'train': train, 'val': val}
    for name, split in splits.items():
        if split.count < 1:
            raise DistillError(f'The number of {name} images is {split.count}; it must be at least 1.')
    settings: dict[str, Any] = {'source': 'COCO', 'seed': seed, 'symlink': symlink}
    settings['classes'] = None if classes is None else sorted(classes)
    for name, split in splits.items():
        settings[name] = [str(split.annotations.resolve()), str(split.images.resolve()), split.count]
        # Folders that were made without maps stay what they are.
        settings[name] += [] if split.maps is None else [str(split.maps.resolve())]
    build = partial(_build, splits=splits, seed=seed, classes=classes, symlink=symlink, report=report)
    ensure_folder(Path(root), settings, generator=_VERSION, build=build, report=report)
    return Path(root)
