"""Read a config that a run has written down, without running it.

What MMEngine writes is a list of assignments of literals and calls of ``dict``; nothing else is understood here, so
that a folder from somebody else can be looked at.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping
from typing import Any

_NAMES = {'inf': math.inf, 'nan': math.nan}


def written_config(text: str) -> dict[str, Any]:
    """The entries of a written config.

    Args:
        text: Of the file.

    Returns:
        The entries by name.

    Raises:
        ValueError: If the text holds more than literals.
    """
    try:
        body = ast.parse(text).body
        found = {}
        for node in body:
            if not isinstance(node, ast.Assign) or len(node.targets) != 1 or not isinstance(node.targets[0], ast.Name):
                raise ValueError(f'line {node.lineno} is no assignment')
            found[node.targets[0].id] = _value(node.value)
    except (SyntaxError, RecursionError, MemoryError, TypeError) as error:
        raise ValueError(f'it is no written config ({type(error).__name__})') from error
    return found


def config_text(value: Any, indent: int = 0) -> str:
    """An entry as a person would write it in a config.

    Args:
        value: Dicts, lists and literals.
        indent: How deep it stands.
    """
    flat = _flat(value)
    if len(flat) + indent <= 78 or not isinstance(value, (Mapping, list, tuple)):
        return flat
    inner = ' ' * (indent + 4)
    if isinstance(value, Mapping):
        named = _named(value)
        lines = [
            f'{inner}{key}={config_text(item, indent + 4)},\n'
            if named
            else f'{inner}{key!r}: {config_text(item, indent + 4)},\n'
            for key, item in value.items()
        ]
        left, right = ('dict(', ')') if named else ('{', '}')
    else:
        lines = [f'{inner}{config_text(item, indent + 4)},\n' for item in value]
        left, right = ('[', ']') if isinstance(value, list) else ('(', ')')
    return f'{left}\n{"".join(lines)}{" " * indent}{right}'


def _flat(value: Any) -> str:
    """The same on one line."""
    if isinstance(value, Mapping):
        if _named(value):
            return f'dict({", ".join(f"{key}={_flat(item)}" for key, item in value.items())})'
        return f'{{{", ".join(f"{key!r}: {_flat(item)}" for key, item in value.items())}}}'
    if isinstance(value, list):
        return f'[{", ".join(map(_flat, value))}]'
    if isinstance(value, tuple):
        return f'({", ".join(map(_flat, value))}{"," if len(value) == 1 else ""})'
    return repr(value)


def _named(value: Mapping) -> bool:
    return all(isinstance(key, str) and key.isidentifier() for key in value)


def _value(node: ast.AST) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        value = _value(node.operand)
        return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.Name) and node.id in _NAMES:
        return _NAMES[node.id]
    if isinstance(node, ast.List):
        return [_value(item) for item in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(_value(item) for item in node.elts)
    if isinstance(node, ast.Set):
        return {_value(item) for item in node.elts}
    if isinstance(node, ast.Dict):
        if any(key is None for key in node.keys):
            raise ValueError(f'line {node.lineno} unpacks a dict')
        return {_value(key): _value(item) for key, item in zip(node.keys, node.values) if key is not None}
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == 'dict':
        # MMEngine writes a dict whose keys are no names as dict({...}).
        found = {}
        for item in node.args:
            found.update(_value(item))
        for keyword in node.keywords:
            if keyword.arg is None:
                raise ValueError(f'line {node.lineno} unpacks a dict')
            found[keyword.arg] = _value(keyword.value)
        return found
    raise ValueError(f'line {getattr(node, "lineno", 0)} is no literal')
