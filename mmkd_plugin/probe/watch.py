"""What the modules of a model took and returned while it ran."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from mmkd_plugin.probe.taps import Tap


class Watch:
    """What the modules of a model took and returned during one forward pass.

    Tensors are told apart by identity, so all of them are kept until the probe is over. Heads that training runs past
    their hooks are listed in ``direct``; ``refused`` says whether a head could not be run.
    """

    def __init__(self, model: nn.Module) -> None:
        self.modules = dict(model.named_modules())
        self.direct: set[str] = set()
        self.refused = False
        self.start((0, 0))
        self._handles = [module.register_forward_hook(self._hook(path)) for path, module in self.modules.items()]

    def start(self, size: tuple[int, int]) -> None:
        """Forget what was seen, before a run on an image of another height and width."""
        self.size = size
        self.results: dict[str, list[Any]] = {}
        self._inputs: dict[tuple[str, int], Any] = {}
        self._origins: dict[int, list[tuple[str, int]]] = {}
        self._elements: dict[int, list[tuple[str, int, int]]] = {}

    def _hook(self, path: str) -> Any:
        def hook(module: nn.Module, inputs: Any, outputs: Any) -> None:
            calls = self.results.setdefault(path, [])
            origin = (path, len(calls))
            calls.append(outputs)
            self._inputs[origin] = inputs
            if isinstance(outputs, Tensor):
                self._origins.setdefault(id(outputs), []).append(origin)
            elif isinstance(outputs, (tuple, list)):
                for index, element in enumerate(outputs):
                    self._elements.setdefault(id(element), []).append((*origin, index))

        return hook

    def stop(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()

    def origins_of(self, tensor: Any) -> list[tuple[str, int]]:
        """The modules that returned a tensor, each with the number of its call, from the innermost outwards."""
        return self._origins.get(id(tensor), [])

    def elements_of(self, tensor: Any) -> list[tuple[str, int, int]]:
        """The modules that returned a tensor among others, each with the number of its call and the tensor's place."""
        return self._elements.get(id(tensor), [])

    def input_of(self, origin: tuple[str, int]) -> Any:
        """What a module was called with."""
        inputs = self._inputs[origin]
        return inputs[0] if inputs else None

    def taps(self) -> dict[str, tuple[Tap, ...]]:
        """All outputs of every module that returned feature maps."""
        return {
            path: tuple(self.tap(path, output, call) for call, output in enumerate(calls))
            for path, calls in self.results.items()
            if path and all(map(is_map, calls))
        }

    def tap(self, path: str, feature: Tensor, call: int = 0, data_idx: int | None = None) -> Tap:
        """The tap at which a feature was seen."""
        stride = round(self.size[1] / feature.shape[-1])
        return Tap(
            source=path,
            channels=feature.shape[1],
            stride=stride,
            record_idx=call,
            data_idx=data_idx,
            nonnegative=bool((feature >= 0).all()),
            direct=path in self.direct,
        )


def is_map(output: Any) -> bool:
    """Whether a module returned one feature map, ``(N, C, H, W)``."""
    return isinstance(output, Tensor) and output.dim() == 4
