"""The source of mmcv, fetched and corrected where its set-up fails on what came after it."""

from __future__ import annotations

import shutil
from pathlib import Path

from console import SetupError, run

CORRECTIONS = (
    # Without a C++ standard of mmcv's own, torch's build adds the one that its headers ask for.
    ("['-std=c++17']", '[]'),
    # From Python 3.13 on, what exec() defines in a function is not in a later locals().
    ("exec(compile(f.read(), version_file, 'exec'))", "exec(compile(f.read(), version_file, 'exec'), globals())"),
    ("return locals()['__version__']", "return globals()['__version__']"),
)


def fetch_source(python: Path, name: str, version: str, folder: Path) -> Path:
    """Download, unpack and correct the source, unless an earlier try did.

    Args:
        python: The environment's Python.
        name: ``mmcv`` or ``onedl-mmcv``.
        version: Its version.
        folder: Where it is kept.

    Returns:
        The folder with its ``setup.py``.

    Raises:
        SetupError: If pip cannot get it.
    """
    source = folder / f'{name}-{version}'
    if (source / 'setup.py').is_file():
        correct(source / 'setup.py')
        return source
    fetching = folder / 'fetching'
    shutil.rmtree(fetching, ignore_errors=True)
    fetching.mkdir(parents=True)
    log = folder / 'build.log'
    # pip unpacks the archive to ask it for its requirements, which mmcv's set-up cannot answer everywhere. What pip
    # unpacked is all that is needed, so it stays, and pip's own verdict does not matter.
    run(
        f'{name} {version}: fetching the source',
        [str(python), '-m', 'pip', 'download', f'{name}=={version}', '--no-deps', '--no-binary', name]
        + ['--no-build-isolation', '--disable-pip-version-check', '--no-clean', '-d', str(fetching / 'archive')],
        log,
        env={'TMPDIR': str(fetching)},
        may_fail=True,
    )
    unpacked = next((file.parent for file in fetching.glob('pip-*/*/setup.py')), None)
    if unpacked is None:
        raise SetupError(f'pip cannot get the source of {name} {version}; its whole output is in {log}.')
    correct(unpacked / 'setup.py')
    shutil.rmtree(source, ignore_errors=True)
    # Renamed in the end: a folder with the final name is complete.
    unpacked.replace(source)
    shutil.rmtree(fetching, ignore_errors=True)
    return source


def correct(script: Path) -> None:
    """Apply the corrections to a ``setup.py``; those that it does not need change nothing."""
    text = before = script.read_text(encoding='utf-8')
    for wrong, right in CORRECTIONS:
        if right not in text or right == '[]':
            text = text.replace(wrong, right)
    if text != before:
        script.write_text(text, encoding='utf-8')
