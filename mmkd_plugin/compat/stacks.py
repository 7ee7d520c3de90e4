"""The stacks that the plugin is tested on, read from ``stacks.cfg``; nothing but the standard library is needed."""

from __future__ import annotations

import configparser
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

STACKS_FILE = Path(__file__).with_name('stacks.cfg')

DEFAULT = 'default'
"""The stack that set-up installs unless another is asked for."""

DISTRIBUTIONS = {
    'mmengine': ('mmengine', 'onedl-mmengine'),
    'mmcv': ('mmcv', 'onedl-mmcv'),
    'mmdet': ('mmdet', 'onedl-mmdetection'),
    'mmseg': ('mmsegmentation', 'onedl-mmsegmentation'),
    'mmrazor': ('mmrazor',),
}
"""Under which names pip knows the packages that the plugin builds on, by the name that Python imports."""


class Stack(NamedTuple):
    """Versions that are tested together.

    Attributes:
        name: Of the section, as in ``STACK=wheels``.
        about: One line for people.
        python: Such as ``3.11``.
        packages: What pip is asked for, such as ``==2.13.0``, by the name that pip knows.
        download: Gigabytes that are fetched where nothing of it lies in pip's cache.
        disk: Gigabytes that the environment takes.
        optional: What only some families of the zoos need, as pip takes it.
    """

    name: str
    about: str
    python: str
    packages: dict[str, str]
    download: float
    disk: float
    optional: tuple[str, ...] = ()

    @property
    def requirements(self) -> list[str]:
        """All packages as pip takes them."""
        return [self.requirement(name) for name in self.packages]

    def requirement(self, name: str) -> str:
        """One package as pip takes it."""
        return name + self.packages[name]

    def allows(self, name: str, version: str) -> bool:
        """Whether a version, such as ``2.13.0+cpu``, is the stack's; any is where the stack says nothing."""
        return within(version, self.packages.get(name, ''))

    def distribution(self, module: str) -> str:
        """The name under which pip knows the package that this stack imports as ``module``."""
        return next(name for name in DISTRIBUTIONS[module] if name in self.packages)

    def version(self, name: str) -> str:
        """The one version of a pinned package."""
        return self.packages[name].partition('==')[2]


def read_stacks(file: Path = STACKS_FILE) -> dict[str, Stack]:
    """Read the file.

    Returns:
        The stacks by name, in its order.
    """
    parser = configparser.ConfigParser(delimiters=('=',))
    parser.read(file, encoding='utf-8')
    stacks = {}
    for name in parser.sections():
        section = parser[name]
        lines = section['packages'].split()
        packages = {distribution_of(line): line[len(distribution_of(line)) :] for line in lines}
        size = (float(section['download']), float(section['disk']))
        optional = tuple(section.get('optional', '').split())
        stacks[name] = Stack(name, section['about'], section['python'], packages, *size, optional)
    return stacks


def nearest_stack(versions: Mapping[str, str], python: str, stacks: Mapping[str, Stack] | None = None) -> Stack:
    """The stack that comes nearest to what is installed.

    Forks count before anything else, then the distance of torch's version, then Python's, then how many packages
    agree; where all that is the same, the default comes first.

    Args:
        versions: What is installed, by the name that pip knows; what is not installed is empty or absent.
        python: Such as ``3.11.7``.
        stacks: Where to choose; by default all that there are.
    """

    def distance(stack: Stack) -> tuple[int, float, float, int, bool]:
        known = [name for names in DISTRIBUTIONS.values() for name in names if versions.get(name)]
        strangers = sum(name not in stack.packages for name in known)
        torch = _apart(versions.get('torch', ''), stack.version('torch'))
        agree = sum(bool(versions.get(name)) and within(versions[name], spec) for name, spec in stack.packages.items())
        return strangers, torch, _apart(python, stack.python), -agree, stack.name != DEFAULT

    return min((stacks or read_stacks()).values(), key=distance)


def distribution_of(requirement: str) -> str:
    """The name in a requirement: ``torch`` of ``torch==2.13.0``."""
    return re.split(r'[^\w.-]', requirement, maxsplit=1)[0]


def within(version: str, spec: str) -> bool:
    """Compare a version with a specification such as ``>=2.6,<2.14``; release numbers alone count.

    Args:
        version: As a package states it; local and pre-release parts are ignored.
        spec: Comma-separated ``==``, ``>=``, ``<=`` or ``<`` clauses.

    Returns:
        Whether all clauses hold.
    """
    have = release(version)
    for operator, bound in re.findall(r'(==|>=|<=|<)\s*([\w.]+)', spec):
        want = release(bound)
        width = max(len(have), len(want))
        left, right = (part + (0,) * (width - len(part)) for part in (have, want))
        holds = {'==': left == right, '>=': left >= right, '<=': left <= right, '<': left < right}
        if not holds[operator]:
            return False
    return True


def release(version: str) -> tuple[int, ...]:
    """The numbers of a version: ``(2, 13, 0)`` of ``2.13.0+cpu``; empty where there are none."""
    match = re.match(r'\d+(\.\d+)*', version)
    return tuple(int(part) for part in match[0].split('.')) if match else ()


def _apart(version: str, other: str) -> float:
    """How far two versions are apart: a major step is more than any minor one, infinite where one is unknown."""
    (major, minor), (other_major, other_minor) = ((*release(text), 0, 0)[:2] for text in (version, other))
    return abs((major - other_major) * 1000 + minor - other_minor) if version else float('inf')
