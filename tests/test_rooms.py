"""The house stands: every room builds on lower floors alone, and no file is too long to read."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / 'mmkd_plugin'
FLOORS = (
    ('errors', 'version'),
    ('compat', 'utilities'),
    ('functional', 'registry'),
    ('connectors', 'datasets', 'distillers', 'models', 'recorders'),
    ('probe',),
    ('methods', 'teachers'),
    ('algorithms', 'block'),
    ('views',),
    ('engine',),
    ('cli',),
    ('study',),
    ('commands',),
    ('__main__',),
)
"""From the ground up; rooms of one floor do not know each other."""
LONGEST = 400


def floor_of(room: str) -> int:
    return next(index for index, rooms in enumerate(FLOORS) if room in rooms)


def imports(path: Path) -> set[str]:
    """Rooms of the package that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [f'{node.module}.{alias.name}' for alias in node.names]
        found |= {name.split('.')[1] for name in names if name.startswith('mmkd_plugin.')}
    return found - {'__version__'}


def files() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob('*.py') if '.mim' not in path.parts)


def room_of(path: Path) -> str:
    return Path(path.relative_to(PACKAGE).parts[0]).stem


def test_every_room_has_a_floor():
    rooms = {room_of(path) for path in files()} - {'__init__'}
    assert rooms == {room for floor in FLOORS for room in floor}


@pytest.mark.parametrize('path', files(), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_no_arrow_leads_upwards(path):
    room = room_of(path)
    if room == '__init__':
        assert imports(path) <= {'compat', 'version'}
        return
    above = {other for other in imports(path) - {room} if floor_of(other) >= floor_of(room)}
    assert not above


def test_no_module_imports_itself_in_a_circle():
    names = {path: '.'.join(path.relative_to(ROOT).with_suffix('').parts).replace('.__init__', '') for path in files()}
    known = set(names.values())
    graph = {name: {item for item in modules(path) if item in known and item != name} for path, name in names.items()}
    while free := [name for name, needed in graph.items() if not needed]:
        for name in free:
            del graph[name]
        for needed in graph.values():
            needed.difference_update(free)
    assert graph == {}


def modules(path: Path) -> set[str]:
    """Modules that a file imports when it is imported itself, parts of a package by their own names."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f'{node.module}.{alias.name}' for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def test_no_file_is_longer_than_a_reader_bears():
    tracked = [
        path
        for folder in ('mmkd_plugin', 'tests', 'tools', 'benchmarks', 'setup', 'examples', 'configs')
        for path in (ROOT / folder).rglob('*.py')
        if '.mim' not in path.parts
    ]
    assert {path.name: lines for path in tracked if (lines := len(path.read_text().splitlines())) > LONGEST} == {}
