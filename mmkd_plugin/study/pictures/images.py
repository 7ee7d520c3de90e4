"""The images that a user names, and the files that their pictures are written to."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope

from mmkd_plugin.errors import DistillError
from mmkd_plugin.study.pictures.training_image import dataset_of


@dataclasses.dataclass(frozen=True)
class Shown:
    """An image.

    Attributes:
        item: As a test pipeline gives it.
        annotated: Whether it carries its truth.
    """

    item: dict
    annotated: bool = False


def read_image(config: Config, image: Path) -> dict:
    """An image file as the config's test pipeline gives it, without annotations.

    Raises:
        DistillError: If there is no such file, or it is no image.
    """
    if not image.is_file():
        raise DistillError(f'The image "{image}" does not exist; give the path of an image file.')
    if config.get('test_dataloader') is None:
        raise DistillError('The config has no test_dataloader, whose pipeline would read the image; add one.')
    init_default_scope(config.get('default_scope', 'mmdet'))
    dataset = config.test_dataloader.dataset
    while 'pipeline' not in dataset and 'dataset' in dataset:
        dataset = dataset.dataset
    steps = [step for step in dataset.pipeline if 'LoadAnnotations' not in str(step.type)]
    try:
        return Compose(steps)(dict(img_path=str(image), img_id=0))
    except Exception as error:
        raise DistillError(f'"{image}" cannot be read as an image; give a PNG or JPEG file.') from error


def wanted_pictures(config: Config, files: Sequence[Path], index: int | None, out: Path) -> dict[Path, Shown]:
    """The images of a command line by the PNG that shows each.

    Args:
        config: Gives the test pipeline and, for an index, the test data.
        files: Image files; read where there is no index.
        index: Of an image in the test data.
        out: PNG to write; of several images each adds its name.

    Raises:
        DistillError: If an image does not exist, or would be written over.
    """
    if index is not None:
        return {out: Shown(dataset_of(config, 'test_dataloader', index)[index], annotated=True)}
    outs = picture_files(out, [file.stem for file in files])
    require_apart(outs, files)
    return {picture: Shown(read_image(config, file)) for picture, file in zip(outs, files)}


def picture_files(out: Path, names: Sequence[str]) -> list[Path]:
    """Where the picture of each image goes: ``out`` itself for one, a file beside it for each of several."""
    if len(names) == 1:
        return [out]
    files: list[Path] = []
    for name in names:
        file = out.with_name(f'{out.stem}_{name}{out.suffix}')
        count = 2
        while file in files:
            file, count = out.with_name(f'{out.stem}_{name}_{count}{out.suffix}'), count + 1
        files.append(file)
    return files


def require_apart(out: Sequence[Path], images: Sequence[Path]) -> None:
    """Refuse to write over an image.

    Raises:
        DistillError: Naming the picture that would.
    """
    for file in out:
        for image in images:
            if file.exists() and image.exists() and file.samefile(image):
                raise DistillError(f'--out {file} is the image itself; give another file to write.')
