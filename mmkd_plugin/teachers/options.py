"""What a user may ask of the teacher's forward pass, so that it costs less."""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, Optional

import torch
from typing_extensions import Literal

from mmkd_plugin.errors import DistillError
from mmkd_plugin.utilities.settings import Positive, from_dict

EXACT = 1e-4
"""How far an option may move a record that changes the order of sums alone, as a share of the record's norm."""
HALF = {'bfloat16': 0.05, 'float16': 0.01}
"""The same in half precision, whose numbers have 8 or 11 binary digits."""


@dataclasses.dataclass(frozen=True)
class TeacherOptions:
    """How the teacher's forward pass is made cheaper.

    Attributes:
        fuse_bn: Whether each batch norm that follows a convolution is folded into it; ``None`` does so where the
            records stay the same.
        channels_last: Whether maps lie in memory channel by channel within each pixel; ``None`` decides by what was
            measured on the device, where the records stay the same.
        dtype: Half precision that the teacher computes in; its records are handed over in single precision. ``None``
            leaves it to the run: single precision, or that of ``AmpOptimWrapper``.
        prepack: Whether a CPU lays the weights of convolutions out once, in the order in which it reads them, instead
            of in each step; they are held twice then.
        compile: Whether ``torch.compile`` compiles the parts of the teacher that hold no recorded module inside.
        device: Another device that the teacher lies on, such as ``'cuda:1'``; batches go there, records come back.
        stream: Whether a GPU runs the teacher in a CUDA stream of its own, beside the student's.
        tolerance: How far an option may move a record on the first batch, as a share of the record's norm; ``None``
            is 1e-4, with ``dtype`` 0.05 for ``'bfloat16'`` and 0.01 for ``'float16'``.
    """

    fuse_bn: Optional[bool] = None
    channels_last: Optional[bool] = None
    dtype: Optional[Literal['bfloat16', 'float16']] = None
    prepack: bool = False
    compile: bool = False
    device: Optional[str] = None
    stream: bool = False
    tolerance: Optional[Positive] = None

    @classmethod
    def parse(cls, values: Dict[str, Any], where: str = 'teacher_options') -> TeacherOptions:
        """Check what a user wrote.

        Args:
            values: The dict.
            where: Its path in the config, for messages.

        Returns:
            The options.

        Raises:
            DistillError: On an unknown key or a value that it does not take.
        """
        return from_dict(cls, values, where)

    def allowed(self, half: bool) -> float:
        """The tolerance, with the option ``dtype`` in force or not."""
        if self.tolerance is not None:
            return self.tolerance
        return HALF[str(self.dtype)] if half else EXACT

    def require_machine(self, where: str = 'teacher_options') -> None:
        """Refuse what this machine cannot do, before anything is run.

        Args:
            where: Path of the options in the config, for messages.

        Raises:
            DistillError: Naming the option.
        """
        if self.device is not None:
            _require_device(self.device, f'{where}.device')
        if self.compile and self.prepack:
            raise DistillError(
                f'"{where}.compile" and "{where}.prepack" cannot go together, since what is compiled does not see '
                'prepacked weights; leave one of them out.'
            )
        if self.stream and not torch.cuda.is_available():
            raise DistillError(f'"{where}.stream" needs a GPU, and none is visible; leave it out.')
        if self.compile and not hasattr(torch, 'compile'):
            raise DistillError(
                f'"{where}.compile" needs torch 2.0 or newer, and this is {torch.__version__}; leave it out.'
            )

    def require_home(self, home: torch.device, where: str = 'teacher_options') -> None:
        """Refuse what the device that the teacher runs on cannot do.

        Args:
            home: Device of the student.
            where: Path of the options in the config, for messages.

        Raises:
            DistillError: Naming the option.
        """
        device = home if self.device is None else torch.device(self.device)
        if self.prepack and device.type != 'cpu':
            raise DistillError(
                f'"{where}.prepack" is for a teacher on a CPU, and this one runs on "{device}"; leave it out.'
            )
        if self.stream and device.type != 'cuda':
            raise DistillError(
                f'"{where}.stream" is for a teacher on a GPU, and this one runs on "{device}"; leave it out.'
            )
        if self.dtype is not None and device.type == 'cpu' and not _cpu_computes(self.dtype):
            other = ", or write dtype='bfloat16'" if self.dtype == 'float16' and _cpu_computes('bfloat16') else ''
            raise DistillError(
                f'"{where}.dtype" is {self.dtype!r}, in which this CPU does not compute; leave it out{other}.'
            )


def _cpu_computes(dtype: str) -> bool:
    """Whether convolutions of the CPU run in half precision."""
    name = dict(bfloat16='_is_mkldnn_bf16_supported', float16='_is_mkldnn_fp16_supported')[dtype]
    supported = getattr(torch.ops.mkldnn, name, None)
    return supported is not None and bool(supported())


def _require_device(name: str, where: str) -> None:
    """Refuse a device that torch does not know, that is not there, or that holds no numbers."""
    try:
        device = torch.device(name)
    except RuntimeError:
        raise DistillError(f"\"{where}\" is {name!r}; it must be a device such as 'cuda:1' or 'cpu'.") from None
    if device.type == 'meta':
        raise DistillError(f'"{where}" is {name!r}, a device that holds no numbers; name a GPU such as \'cuda:1\'.')
    if device.type == 'cuda' and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        seen = f'{count} GPUs are' if count > 1 else 'one GPU is' if count else 'no GPU is'
        raise DistillError(f'"{where}" is {name!r}, but {seen} visible; name one that is, or leave it out.')
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip('.')
        raise DistillError(f'"{where}" is {name!r}, which cannot be used ({reason}); name another device.') from error
