"""The wheel holds the package, configs and tools, and nothing of the project's own workshop."""

from __future__ import annotations

import base64
import csv
import hashlib
import re
import sys
import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

from _helpers.builds import pip, run

MIM = 'mmkd_plugin/.mim/'
USERS_OWN = {'torch', 'torchvision', 'mmengine', 'mmcv', 'mmdet', 'mmsegmentation', 'mmrazor', 'setuptools'}


def files(folder: Path) -> set[str]:
    """The files of a folder, relative to the one that holds it."""
    found = (path for path in folder.rglob('*') if path.is_file() and '__pycache__' not in path.parts)
    return {path.relative_to(folder.parent).as_posix() for path in found}


def packed(wheel: Path) -> set[str]:
    """The files of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def described(wheel: Path, name: str) -> str:
    """A file of the wheel's ``.dist-info``."""
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(next(path for path in archive.namelist() if path.endswith(f'.dist-info/{name}'))).decode()


def metadata(wheel: Path) -> Message:
    """What the wheel says about itself."""
    return Parser().parsestr(described(wheel, 'METADATA'))


def test_wheel_holds_the_package_and_the_hook_alone(wheel: Path) -> None:
    tops = {name.split('/')[0] for name in packed(wheel)}
    assert {name for name in tops if not name.endswith('.dist-info')} == {
        'mmkd_plugin',
        '_mmkd_plugin_config_hook.py',
        '_mmkd_plugin_config_hook.pth',
    }


def test_wheel_holds_every_file_of_the_package(wheel: Path, source: Path) -> None:
    own = {name for name in packed(wheel) if name.startswith('mmkd_plugin/') and not name.startswith(MIM)}
    assert own == {name for name in files(source / 'mmkd_plugin') if not name.startswith(MIM)}


def test_wheel_holds_configs_and_tools(wheel: Path, source: Path) -> None:
    shared = {name[len(MIM) :] for name in packed(wheel) if name.startswith(MIM)}
    assert shared == files(source / 'configs') | files(source / 'tools') | {'model-index.yml'}
    assert {'tools/train.py', 'tools/test.py', 'tools/dist_train.sh'} <= shared


def test_wheel_lists_every_file_with_its_hash(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        record = next(name for name in archive.namelist() if name.endswith('.dist-info/RECORD'))
        rows = {name: (digest, size) for name, digest, size in csv.reader(archive.read(record).decode().splitlines())}
        assert set(rows) == set(archive.namelist())
        for name, (digest, size) in rows.items():
            if name != record:
                content = archive.read(name)
                wanted = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip('=')
                assert (digest, int(size)) == (f'sha256={wanted}', len(content)), name


def test_scripts_stay_executable(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        scripts = {info.filename[len(MIM) :]: info for info in archive.infolist() if info.filename.endswith('.sh')}
    assert set(scripts) == {f'tools/{how}_{what}.sh' for how in ('dist', 'slurm') for what in ('train', 'test')}
    assert all(info.external_attr >> 16 & 0o111 for info in scripts.values())


def test_nothing_of_the_user_is_replaced(wheel: Path) -> None:
    needed = [line for line in metadata(wheel).get_all('Requires-Dist', []) if 'extra ==' not in line]
    assert needed
    assert all(re.fullmatch(r'[\w-]+', line) for line in needed), 'a version may replace what the user has'
    assert not USERS_OWN & {line.lower() for line in needed}


def test_wheel_brings_the_command(wheel: Path) -> None:
    assert 'mmkd = mmkd_plugin.__main__:main' in described(wheel, 'entry_points.txt').splitlines()


def test_wheel_asks_for_the_one_floor(wheel: Path) -> None:
    assert metadata(wheel)['Requires-Python'] == '>=3.8'


def test_wheel_from_the_source_archive_is_the_same(
    wheel: Path, source: Path, python_editable: Path, tmp_path: Path
) -> None:
    # An editable installation made the links, which must not get into the archive as copies.
    assert (source / MIM / 'configs').is_symlink()
    code = 'import sys; sys.path.insert(0, "setup/build_backend"); import mmkd_build_backend as backend'
    run(sys.executable, '-c', f'{code}; backend.build_sdist(sys.argv[1])', tmp_path, cwd=source)
    with tarfile.open(next(tmp_path.glob('*.tar.gz'))) as archive:
        assert not [member.name for member in archive.getmembers() if '/.mim' in member.name]
        for member in archive.getmembers():
            archive.extract(member, tmp_path / 'unpacked')
    out = tmp_path / 'out'
    pip('wheel', '--no-deps', '--no-build-isolation', '-w', out, next((tmp_path / 'unpacked').iterdir()), cwd=tmp_path)
    assert packed(next(out.glob('*.whl'))) == packed(wheel)
