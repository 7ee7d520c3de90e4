"""Configs that do not fit each other: MMEngine's error is told with the fix."""

from __future__ import annotations

from pathlib import Path

import pytest
from mmengine.config import Config

from mmkd_plugin.errors import DistillError

FGD, PKD = 'mmkd_plugin::_base_/fgd/one_stage.py', 'mmkd_plugin::_base_/pkd/neck.py'


def config(folder: Path, text: str, name: str = 'mine.py') -> str:
    """A file of a user."""
    (folder / name).write_text(text)
    return str(folder / name)


@pytest.mark.parametrize('second', [PKD, './first.py'])
def test_two_blocks_in_one_base(tmp_path: Path, second: str) -> None:
    config(tmp_path, f"_base_ = ['{FGD}']\n", 'first.py')
    with pytest.raises(DistillError, match=r'bring a distill block each.*write the second method beside it') as caught:
        Config.fromfile(config(tmp_path, f"_base_ = ['{FGD}', '{second}']\n"))
    assert '\n' not in str(caught.value)


def test_what_the_sentence_advises_combines_two_methods(tmp_path: Path) -> None:
    advice = "distill = dict(methods=dict(pkd=dict(type='Feature', loss=dict(type='PKDLoss'))))\n"
    cfg = Config.fromfile(config(tmp_path, f"_base_ = ['{FGD}']\n{advice}"))
    assert [name for name in cfg.distill.methods if name != '_scope_'] == ['fgd', 'pkd']


def test_other_duplicates_keep_mmengines_error(tmp_path: Path) -> None:
    config(tmp_path, 'x = 1\n', 'first.py')
    config(tmp_path, 'x = 2\n', 'second.py')
    with pytest.raises(KeyError, match='Duplicate key'):
        Config.fromfile(config(tmp_path, "_base_ = ['./first.py', './second.py']\n"))


def test_other_dicts_keep_mmengines_error() -> None:
    with pytest.raises(TypeError, match='cannot inherit from base'):
        Config(dict(model='x')).merge_from_dict({'model.depth': 18})


def test_dict_over_an_inherited_text(tmp_path: Path) -> None:
    config(tmp_path, "distill = dict(teacher='a.py')\n", 'base.py')
    text = "_base_ = './base.py'\ndistill = dict(teacher=dict({}model=dict(type='RetinaNet')))\n"
    with pytest.raises(DistillError, match=r'"teacher" is a dict here.*write teacher=dict\(_delete_=True'):
        Config.fromfile(config(tmp_path, text.format('')))
    replaced = Config.fromfile(config(tmp_path, text.format('_delete_=True, ')))
    assert replaced.distill.teacher == dict(model=dict(type='RetinaNet'))


def test_option_below_a_text() -> None:
    cfg = Config(dict(distill=dict(teacher='a.py')))
    with pytest.raises(DistillError, match='"teacher" is a dict here'):
        cfg.merge_from_dict({'distill.teacher.model.depth': 18})
    cfg.merge_from_dict({'distill.teacher': 'b.py'})
    assert cfg.distill.teacher == 'b.py'
