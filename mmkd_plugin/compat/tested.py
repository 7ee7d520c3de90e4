"""The versions that the plugin is tested with, read from ``tested.txt``; nothing but the standard library is needed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

TESTED_FILE = Path(__file__).with_name('tested.txt')


class Tested(NamedTuple):
    """One line of the file.

    Attributes:
        name: The package as pip knows it.
        spec: The versions that are tested, in pip's notation; empty where every version is.
        default: The version that set-up installs where ``spec`` is a range.
    """

    name: str
    spec: str
    default: str = ''

    @property
    def requirement(self) -> str:
        """What set-up hands to pip."""
        return f'{self.name}=={self.default}' if self.default else f'{self.name}{self.spec}'

    def allows(self, version: str) -> bool:
        """Whether a version, such as ``2.13.0+cpu``, is tested."""
        return within(version, self.spec)


def read_tested() -> dict[str, Tested]:
    """Read the file.

    Returns:
        Its lines, by package name.
    """
    tested = {}
    for line in TESTED_FILE.read_text(encoding='utf-8').splitlines():
        content, _, comment = line.partition('#')
        match = re.match(r'([\w.-]+)(\S*)', content)
        if match:
            default = re.search(r'default (\S+)', comment)
            tested[match[1]] = Tested(match[1], match[2], default[1] if default else '')
    return tested


def within(version: str, spec: str) -> bool:
    """Compare a version with a specification such as ``>=2.6,<2.14``; release numbers alone count.

    Args:
        version: As a package states it; local and pre-release parts are ignored.
        spec: Comma-separated ``==``, ``>=``, ``<=`` or ``<`` clauses.

    Returns:
        Whether all clauses hold.
    """
    have = _release(version)
    for operator, bound in re.findall(r'(==|>=|<=|<)\s*([\w.]+)', spec):
        want = _release(bound)
        width = max(len(have), len(want))
        left, right = (part + (0,) * (width - len(part)) for part in (have, want))
        holds = {'==': left == right, '>=': left >= right, '<=': left <= right, '<': left < right}
        if not holds[operator]:
            return False
    return True


def _release(version: str) -> tuple[int, ...]:
    match = re.match(r'\d+(\.\d+)*', version)
    return tuple(int(part) for part in match[0].split('.')) if match else ()
