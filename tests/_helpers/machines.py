"""Machines that answer the doctor as a test says."""

from __future__ import annotations

import re

from mmkd_plugin.compat.machine import Machine
from mmkd_plugin.compat.stacks import DEFAULT, read_stacks

STACKS = read_stacks()


def missing(name: str) -> str:
    """Python's own words for a module that is not there."""
    return f"No module named '{name}'"


def refused(version: str, bounds: str = '>=2.0.0rc4, <2.2.0') -> str:
    """The words of the OpenMMLab packages for an mmcv that they do not take."""
    return f'MMCV=={version} is used but incompatible. Please install mmcv{bounds}'


class Fake(Machine):
    """A machine on which everything works, but for what a test says."""

    def __init__(
        self,
        versions: dict[str, str] | None = None,
        broken: dict[str, str] | None = None,
        stack: str = DEFAULT,
        python: str = '',
        cuda: tuple[str, str] = ('', ''),
        hook: bool = True,
        off: bool = False,
        lacking: tuple[str, ...] = (),
    ) -> None:
        """Set the answers.

        Args:
            versions: What is not as in the stack; empty for what is not installed.
            broken: Why modules cannot be imported, and of ``bases`` and ``array`` why they do not work.
            stack: What is installed otherwise.
            python: Its version; by default the stack's.
            cuda: Of torch and of mmcv.
            hook: Whether the start-up file ran.
            off: Whether it is switched off.
            lacking: What quantization misses.
        """
        packages = {name: healthy(spec) for name, spec in STACKS[stack].packages.items()}
        self.versions = {**packages, 'openmim': '0.3.9', 'numpy': '1.26.4', **(versions or {})}
        self.broken = broken or {}
        self.python_version = python or f'{STACKS[stack].python}.7'
        self.cuda = cuda
        self.hook = hook
        self.off = off
        self.lacking = lacking

    def python(self) -> str:
        return self.python_version

    def version(self, distribution: str) -> str:
        return self.versions.get(distribution, '')

    def why_not(self, module: str) -> str:
        return self.broken.get(module, '')

    def why_no_bases(self) -> str:
        return self.broken.get('bases', '')

    def why_no_numpy(self) -> str:
        return self.broken.get('array', '')

    def torch_cuda(self) -> str:
        return self.cuda[0]

    def mmcv_cuda(self) -> str:
        return self.cuda[1]

    def lacking_in_torch(self) -> list[str]:
        return list(self.lacking)

    def hook_runs(self) -> bool:
        return self.hook

    def hook_is_off(self) -> bool:
        return self.off


def healthy(spec: str) -> str:
    """A version that a specification allows."""
    exact = re.match(r'==(.+)', spec) or re.match(r'>=([\d.]+)', spec)
    if exact:
        return exact[1]
    below = re.match(r'<([\d.]*?)(\d+)$', spec)
    return f'{below[1]}{int(below[2]) - 1}' if below else '1.0'
