"""The command says what came of each recipe, and its status whether all work."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip('mmdet')

from mmkd_plugin.__main__ import main
from mmkd_plugin.errors import DistillError
from mmkd_plugin.study.recipes import check

GOOD = 'mmkd_plugin::coco_mini/fgi_retina_r34_to_r18.py'


def test_others_go_on_where_one_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path('broken.py').write_text(f"_base_ = ['{GOOD}']\ndistill = dict(methods=dict(fgi=dict(psy=0.5)))\n")
    assert main(['check-recipes', 'broken.py', GOOD, '--size', '128', '--page', 'docs/page.md']) == 1
    out = capsys.readouterr().out
    first, second = out.index('[1/2] broken.py ... FAILED: '), out.index('[2/2] coco_mini/fgi_retina_r34_to_r18.py')
    assert '"psi"' in out[first:second] and 'works, ' in out[second:] and '24 / 48 channels: imitation' in out
    assert out.endswith('1 of 2 recipes work.\n')
    page = Path('docs/page.md').read_text()
    assert '| `broken.py` |' in page and '| `coco_mini/fgi_retina_r34_to_r18.py` | 764 K / 3.2 M |' in page
    assert Path('work_dirs/check_recipes/coco_mini__fgi_retina_r34_to_r18/console.log').is_file()


def test_all_that_are_shipped_are_checked_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(check, 'check_recipe', lambda name, *_: check.Checked(name, student=1000))
    monkeypatch.setattr(check, 'shipped_recipes', lambda: ['mmkd_plugin::fgd/a.py', 'mmkd_plugin::fgi/b.py'])
    assert main(['check-recipes']) == 0
    out = capsys.readouterr().out
    assert '[1/2] fgd/a.py' in out and '[2/2] fgi/b.py' in out and '2 of 2 recipes work.' in out


def test_traceback_shows_where_a_recipe_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DistillError, match='no_such.py'):
        main(['check-recipes', 'no_such.py', '--traceback'])


def test_size_must_be_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(['check-recipes', '--size', '0'])
    assert ended.value.code == 2
    assert 'give pixels, 256 for instance' in capsys.readouterr().err
