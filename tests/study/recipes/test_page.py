"""What is said of recipes, and that the page names those that are shipped."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')

from mmkd_plugin.study.recipes.check import Checked, shipped_recipes, short_name
from mmkd_plugin.study.recipes.page import lines_of, page, summary
from mmkd_plugin.study.recipes.watch import LossRow, Pair

PAGE = Path(__file__).resolve().parents[3] / 'docs/recipes.md'
HINT = LossRow('chen_hint', (Pair((17, 16), (256, 512)),), {'hint': 0.5})
CLASSES = LossRow('chen_roi_cls', (Pair(None, (21, 21)),), {'soft': 12.0})
LEVELS = LossRow(
    'fgd', tuple(Pair((stride, stride), (256, 256)) for stride in (8, 16)), {'foreground': 0.0123, 'relation': 2e-6}
)
WORKS = Checked('mmkd_plugin::chen/a.py', '', 41_800_000, (60_700_000, 3_200_000), (HINT, CLASSES), seconds=12.3)
SLIGHT = Checked('own/b.py', '', 1000, (2000,), (LEVELS,), ('"fgd" waits.',))
FAILS = Checked('mmkd_plugin::chen/c.py', 'No level | of it.')


def test_console() -> None:
    assert lines_of(WORKS) == [
        'works, 12 s: 41.8 M / 60.7 M + 3.2 M parameters (student / teacher)',
        '  chen_hint: 17/16, 256 / 512 channels: hint 50 %',
        '  chen_roi_cls: -, 21 / 21 channels: soft 1200 %',
        '  "chen_roi_cls.soft" is 12 times the task loss.',
    ]
    assert lines_of(FAILS) == ['FAILED: No level | of it.']
    assert summary([WORKS, FAILS]) == '1 of 2 recipes work.'
    assert summary([WORKS]) == '1 of 1 recipe works.'


def test_rows_and_remarks() -> None:
    text = page([WORKS, SLIGHT, FAILS], 128)
    assert '| `chen/a.py` | 41.8 M / 60.7 M + 3.2 M | chen_hint | 17/16 | 256 / 512 | hint 50 % |' in text
    assert '|  |  | chen_roi_cls | - | 21 / 21 | soft 1200 % |' in text
    assert '| `own/b.py` | 1 K / 2 K | fgd | 8 16 | 256 / 256 | foreground 1.2 %, relation 0.0002 % |' in text
    assert '| `chen/c.py` |  |  |  |  | FAILED: No level \\| of it. |' in text
    assert '128 x 128 pixels' in text and '2 of 3 recipes work.' in text
    assert '- "fgd" waits. (`own/b.py`)' in text
    assert '- "fgd.relation" is 0.0002 % of the task loss. (`own/b.py`)' in text
    assert 'Worth a look' not in page([FAILS])


def test_page_names_every_recipe_and_no_fault() -> None:
    text = PAGE.read_text()
    names = [line.split('`')[1] for line in text.splitlines() if line.startswith('| `')]
    assert names == [short_name(name) for name in shipped_recipes()], 'write the page anew with "make recipes"'
    assert 'FAILED' not in text
