"""The index that mim and MMEngine read lists every metafile, and what it lists exists."""

from __future__ import annotations

from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]


def read(path: Path) -> dict:
    """Read a YAML file."""
    return yaml.safe_load(path.read_text(encoding='utf-8'))


def test_every_metafile_is_listed() -> None:
    listed = set(read(ROOT / 'model-index.yml')['Import'])
    assert listed == {path.relative_to(ROOT).as_posix() for path in (ROOT / 'configs').glob('*/metafile.yml')}


def test_every_listed_config_exists() -> None:
    for name in read(ROOT / 'model-index.yml')['Import']:
        for model in read(ROOT / name)['Models']:
            assert (ROOT / model['Config']).is_file(), f'{name}: {model["Config"]}'
