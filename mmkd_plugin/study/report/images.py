"""Pictures that a run has left, small enough to stand in a page."""

from __future__ import annotations

import base64
import dataclasses
import io
import re
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, UnidentifiedImageError

COUNT = 12
"""The most pictures of a page."""
SIDE = 1400
"""The longest side of a picture in the page, in pixels."""
PIXELS = 40_000_000
"""Larger pictures are not opened."""
BYTES = 600_000
"""A picture that takes more is shown with less detail."""
_STEP = re.compile(r'(.*)_(\d+)')


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture of the page.

    Attributes:
        name: File's name.
        run: The run that it is of, or its comparison.
        address: ``data:`` address with all of it.
    """

    name: str
    run: str
    address: str


def picture_files(folder: Path) -> tuple[list[Path], int]:
    """Pictures in a work folder.

    Args:
        folder: Of a run, or of a comparison.

    Returns:
        Files: those that lie in the folder, then those that hooks have drawn, of each the one of the last step; and how
        many of earlier steps there are.
    """
    own = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in ('.png', '.jpg') and path.is_file()]
    latest: dict[str, tuple[int, Path]] = {}
    count = 0
    for path in sorted(folder.glob('*/vis_data/vis_image/*')):
        named = _STEP.fullmatch(path.stem)
        if path.suffix.lower() in ('.png', '.jpg') and path.is_file():
            count += 1
            name, step = (named[1], int(named[2])) if named else (path.stem, 0)
            if name not in latest or latest[name][0] <= step:
                latest[name] = (step, path)
    return [*own, *(path for _, path in latest.values())], count - len(latest)


def pictures(files: Sequence[tuple[str, Path]], earlier: int = 0) -> tuple[list[Picture], list[str]]:
    """Put pictures into the form that a page holds.

    Args:
        files: The run and the file of each.
        earlier: How many of earlier steps are left out already.

    Returns:
        The first few of them, and a sentence for what is left out.
    """
    found: list[Picture] = []
    unread = too_many = 0
    for run, file in files:
        if len(found) == COUNT:
            too_many += 1
            continue
        address = _address(file)
        if address is None:
            unread += 1
        else:
            found.append(Picture(file.name, run, address))
    said = []
    if earlier:
        said.append(f'{earlier} of earlier steps are left out; they lie in vis_data/vis_image.')
    if too_many:
        said.append(f'The page shows {COUNT} pictures; {too_many} more are left out.')
    if unread:
        said.append(f'{unread} could not be read as a picture, or are larger than {PIXELS // 10**6} megapixels.')
    return found, said


def _address(file: Path) -> str | None:
    """A picture as text, drawn anew, so that whatever else is in the file stays behind."""
    try:
        with Image.open(file, formats=('PNG', 'JPEG')) as image:
            if image.width * image.height > PIXELS:
                return None
            image = image.convert('RGB')
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError):
        return None
    image.thumbnail((SIDE, SIDE))
    kind, content = 'png', _encoded(image, 'PNG', optimize=True)
    if len(content) > BYTES:
        kind, content = 'jpeg', _encoded(image, 'JPEG', quality=85)
    return f'data:image/{kind};base64,{base64.b64encode(content).decode()}'


def _encoded(image: Image.Image, kind: str, **settings: int) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **settings)
    return stream.getvalue()
