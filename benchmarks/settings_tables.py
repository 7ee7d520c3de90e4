"""Markdown tables of what a user may write in a ``distill`` block, read from the classes that take it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.catalogue import methods
from mmkd_plugin.block import CacheBlock, UnlabelledBlock
from mmkd_plugin.block.block import TeacherBlock, WrittenBlock
from mmkd_plugin.distillers.schedule import WeightSchedule
from mmkd_plugin.methods import Method
from mmkd_plugin.study.table import markdown_table
from mmkd_plugin.teachers import TeacherOptions
from mmkd_plugin.utilities.settings import Setting, settings_of, spelled

_HEADS = ('key', 'default', 'range or choices', 'meaning')
_ROLE = re.compile(r':\w+:`~?([^`]+)`')


def regions() -> dict[str, str]:
    """What is generated into the page of the block, by the name of the region."""
    common = settings_of(Method)
    found = {
        'block': settings_table(settings_of(WrittenBlock)),
        'teacher': settings_table(settings_of(TeacherBlock)),
        'teacher_options': settings_table(settings_of(TeacherOptions)),
        'unlabelled': settings_table(settings_of(UnlabelledBlock)),
        'cache': settings_table(settings_of(CacheBlock)),
        'method': settings_table(common),
        'schedule': settings_table(settings_of(WeightSchedule)),
        'renamed': renamed_table(methods()),
    }
    for name, kind in methods().items():
        own = {key: setting for key, setting in kind.settings().items() if key not in common}
        found[name] = f'{title(kind)}.\n\n{settings_table(own)}'
    return found


def settings_table(settings: Mapping[str, Setting]) -> str:
    """One row for each setting."""
    cells = []
    for name, setting in settings.items():
        cells.append((f'`{name}`', _default(setting), allowed(setting.hint), in_markdown(setting.meaning).rstrip('.')))
    return plain_table(cells, _HEADS)


def renamed_table(kinds: Mapping[str, type[Method]]) -> str:
    """What to write instead of keys that are no more."""
    cells = [('every method', f'`{old}`', f'`{new}`') for old, new in Method.renamed.items()]
    for name, kind in kinds.items():
        own = vars(kind).get('renamed', {})
        cells += [(f'`{name}`', f'`{old}`', f'`{new}`') for old, new in own.items()]
    return plain_table(cells, ('method', 'was', 'write'))


def title(kind: type) -> str:
    """First line of a class's docstring in Markdown, without the full stop."""
    return in_markdown((kind.__doc__ or '').strip().splitlines()[0]).rstrip('.')


def allowed(hint: Any) -> str:
    """What a type hint allows, in Markdown."""
    words = re.sub(r'(?<!each )\ba (?=text|dict|number|whole|list)', '', spelled(hint))
    return re.sub(r"('[^']*'|\bTrue\b|\bFalse\b|\bNone\b)", r'`\1`', words)


def in_markdown(text: str) -> str:
    """Text of a docstring, whose markup is reST, in Markdown."""
    text = _ROLE.sub(lambda found: f'`{found[1].split(".")[-1]}`', text)
    return text.replace('``', '`')


def plain_table(cells: Iterable[Sequence[str]], heads: Sequence[str]) -> str:
    """A Markdown table of text, aligned at the left."""
    escaped = [tuple(cell.replace('|', '\\|') for cell in row) for row in cells]
    return markdown_table(escaped, heads).replace(' ---: |', ' --- |').rstrip('\n')


def _default(setting: Setting) -> str:
    return 'required' if setting.default is Setting.REQUIRED else f'`{_written(setting.default)}`'


def _written(value: Any) -> str:
    """A value as a config writes it."""
    if isinstance(value, dict):
        inner = ', '.join(f'{key}={_written(item)}' for key, item in value.items())
        return f'dict({inner})' if value else '{}'
    if isinstance(value, (list, tuple)):
        return f'[{", ".join(map(_written, value))}]'
    return f'{value:g}' if isinstance(value, float) else repr(value)
