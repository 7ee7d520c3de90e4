"""Pictures stand in the page, few and small, and what is none stays out."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

from mmkd_plugin.study.report.images import BYTES, COUNT, SIDE, picture_files, pictures


def save(path: Path, width: int = 4, height: int = 3, noise: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (height, width, 3)
    pixels = np.random.RandomState(0).randint(0, 256, shape) if noise else np.full(shape, 200)
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


def opened(address: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(address.split(',', 1)[1])))


def test_of_each_drawing_the_last_is_taken(tmp_path: Path) -> None:
    drawn = [
        save(tmp_path / f'{start}/vis_data/vis_image/distill_{name}_{step}.png')
        for start, name, step in (('1', 'areas', 1), ('1', 'areas', 1000), ('2', 'areas', 200), ('2', 'attention', 5))
    ]
    own = save(tmp_path / 'spread.png')
    (tmp_path / 'notes.txt').write_text('')
    assert picture_files(tmp_path) == ([own, drawn[1], drawn[3]], 2)


def test_picture_is_whole(tmp_path: Path) -> None:
    found, said = pictures([('run', save(tmp_path / 'a.png', noise=True))])
    assert not said
    assert np.array_equal(np.asarray(opened(found[0].address)), np.asarray(Image.open(tmp_path / 'a.png')))


def test_large_picture_is_made_smaller(tmp_path: Path) -> None:
    found, _ = pictures([('run', save(tmp_path / 'a.png', 3000, 1500, noise=True))])
    assert opened(found[0].address).size == (SIDE, SIDE // 2)
    assert opened(found[0].address).format == 'JPEG'
    assert len(found[0].address) < 3 * BYTES


def test_too_many_are_counted(tmp_path: Path) -> None:
    file = save(tmp_path / 'a.png')
    found, said = pictures([('run', file)] * (COUNT + 2), earlier=3)
    assert len(found) == COUNT
    assert said[0].startswith('3 of earlier steps')
    assert '2 more are left out' in said[1]


def test_what_is_no_picture_stays_out(tmp_path: Path) -> None:
    script = tmp_path / 'a.png'
    script.write_text('<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>')
    cut = save(tmp_path / 'cut.png', 300, 300, noise=True)
    cut.write_bytes(cut.read_bytes()[:1000])
    huge = tmp_path / 'huge.png'
    Image.new('1', (7000, 7000)).save(huge)
    found, said = pictures([('run', file) for file in (script, cut, huge, tmp_path / 'gone.png')])
    assert not found
    assert said == ['4 could not be read as a picture, or are larger than 40 megapixels.']


def test_what_a_file_holds_beside_its_picture_stays_behind(tmp_path: Path) -> None:
    file = save(tmp_path / 'a.png')
    file.write_bytes(file.read_bytes() + b'<script>alert(1)</script>')
    assert b'script' not in base64.b64decode(pictures([('run', file)])[0][0].address.split(',', 1)[1])
