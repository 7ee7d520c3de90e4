"""What is installed on a machine, seen beside the stack that comes nearest."""

from __future__ import annotations

from mmkd_plugin.compat.machine import Machine
from mmkd_plugin.compat.stacks import DISTRIBUTIONS, nearest_stack, read_stacks

PROBES = {
    'mmengine': 'mmengine.runner',
    'mmcv': 'mmcv',
    'mmdet': 'mmdet.models',
    'mmseg': 'mmseg.models',
    'mmrazor': 'mmrazor.models',
}
"""What is imported of each package to see whether it works, in this order."""


class Patient:
    """A machine with what was found on it.

    Attributes:
        machine: Who answers.
        python: Its version.
        stack: The nearest one.
        told: Words by which a failure is recognised that has been named already, and that everything further up
            repeats.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.python = machine.python()
        self.told: list[str] = []
        self._versions: dict[str, str] = {}
        self._reasons: dict[str, str] = {}
        stacks = read_stacks()
        names = {name for stack in stacks.values() for name in stack.packages}
        # Where both distributions of a package are there, the other packages tell which of them is meant.
        doubtful = {name for module in DISTRIBUTIONS for name in self.found(module) if len(self.found(module)) > 1}
        self.stack = nearest_stack({name: self.version(name) for name in names - doubtful}, self.python, stacks)

    def version(self, distribution: str) -> str:
        """The installed version, empty without one."""
        if distribution not in self._versions:
            self._versions[distribution] = self.machine.version(distribution)
        return self._versions[distribution]

    def why_not(self, module: str) -> str:
        """Why a module cannot be imported; it is tried once, since what failed half-way fails differently next."""
        if module not in self._reasons:
            self._reasons[module] = self.machine.why_not(module)
        return self._reasons[module]

    @property
    def torch_works(self) -> bool:
        """Whether there is any use in importing what is built on torch."""
        return bool(self.version('torch')) and not self.why_not('torch')

    def found(self, module: str) -> list[str]:
        """The distributions that are installed of a package."""
        return [name for name in DISTRIBUTIONS[module] if self.version(name)]

    def distribution(self, module: str) -> str:
        """The distribution that is installed of a package, or the one that would fit; of two, the one that fits."""
        found, fits = self.found(module), self.stack.distribution(module)
        return fits if fits in found or not found else found[0]

    def failure(self, module: str) -> str:
        """Why a package does not work that is installed, and whose torch does; all are tried, in their order."""
        if self.torch_works:
            for name, probe in PROBES.items():
                if self.found(name):
                    self.why_not(probe)
        return self._reasons.get(PROBES[module], '')

    def title(self, module: str) -> str:
        """Distribution and version, for people."""
        name = self.distribution(module)
        return f'{name} {self.version(name)}'

    def was_told(self, why: str) -> bool:
        """Whether a failure has been named already."""
        return any(words in why for words in self.told)
