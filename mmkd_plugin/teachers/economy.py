"""The options of a teacher, each compared with the plain forward pass before it is relied on."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Collection, Iterator, Mapping
from typing import Callable

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmkd_plugin.compat.razor import BaseRecorder
from mmkd_plugin.errors import DistillError
from mmkd_plugin.teachers.compiled import Compile
from mmkd_plugin.teachers.flow import traced
from mmkd_plugin.teachers.half_precision import HalfPrecision
from mmkd_plugin.teachers.options import TeacherOptions
from mmkd_plugin.teachers.prepack import Prepack
from mmkd_plugin.teachers.savings import ChannelsLast, FuseBN, OnDevice, OwnStream, Saving
from mmkd_plugin.utilities.nested import map_tensors, tensors_of
from mmkd_plugin.utilities.precision import HALF
from mmkd_plugin.utilities.rng import isolated_rng

Records = Mapping[str, 'list[Tensor]']
"""What each recorder took."""


@dataclasses.dataclass(frozen=True)
class Difference:
    """How far the records of two passes lie apart.

    Attributes:
        value: Norm of the difference, as a share of the norm of the plain record; the largest of all records.
        recorder: Whose it is.
    """

    value: float
    recorder: str


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What became of an option.

    Attributes:
        name: Of the option.
        note: What it did, in a few words; may be empty.
        difference: To the plain records, with it and the options before it in force.
    """

    name: str
    note: str
    difference: float

    def __str__(self) -> str:
        return f'{self.name} ({self.note}{", " if self.note else ""}difference {self.difference:.1e})'


class Economy:
    """Makes a teacher's forward pass cheaper by what the options ask for and the first batch allows.

    Args:
        model: The teacher, in evaluation mode.
        options: What is asked for.
        where: Path of the options, for messages.
    """

    def __init__(self, model: nn.Module, options: TeacherOptions, where: str = 'teacher_options') -> None:
        options.require_machine(where)
        self.model = model
        self.options = options
        self.where = where
        self.verdicts: list[Verdict] = []
        self.refused: list[str] = []
        self._savings: list[Saving] = []
        self._verified: set[str] = set()
        self._compiles = True

    def knows(self, recorders: Collection[str]) -> bool:
        """Whether the options were compared for these recorders."""
        return self._verified.issuperset(recorders)

    def without_compiling(self) -> None:
        """Leave ``compile`` out, for who hooks modules inside of the teacher."""
        self._compiles = False

    def report(self) -> str:
        """One sentence on what is in force; empty before the first batch and where nothing is asked for."""
        if not self._verified or not (self.verdicts or self.refused):
            return ''
        parts = [', '.join(map(str, self.verdicts)) if self.verdicts else 'none']
        return f'teacher options in force: {"; ".join([*parts, *self.refused])}'

    def verify(
        self,
        forward: Callable[[], None],
        recorders: Mapping[str, BaseRecorder],
        everything: bool,
        home: torch.device,
        follows: bool,
    ) -> None:
        """Compare the options, one after another, with the plain pass, and keep what is the same.

        Args:
            forward: Fills the recorders.
            recorders: Those that are read in this step, by name.
            everything: Whether these are all that will ever be read, so that no later comparison is needed.
            home: Device of the batch.
            follows: Whether the teacher needs more of this step than the batch itself.

        Raises:
            DistillError: If an option that was asked for changes the records by more than the tolerance, or fails.
        """
        self.options.require_home(home, self.where)
        for saving in reversed(self._savings):
            saving.undo()
        self._savings, self.verdicts, self.refused = [], [], []
        candidates = list(self._candidates(home, follows))
        if not candidates:
            self._verified |= set(recorders)
            return
        direct = {getattr(recorder, 'source', None) for recorder in recorders.values()}
        read = [module for path, module in self.model.named_modules() if path in direct]
        with isolated_rng(), _exact(home):
            with traced(self.model, read) as flow:
                forward()
            plain = _taken(recorders)
            if not all(bool(torch.isfinite(item).all()) for items in plain.values() for item in items):
                return
            for saving, asked in candidates:
                reason, note, fix = '', '', f'leave it out, or raise {self.where}.tolerance'
                difference = Difference(math.inf, '')
                self._savings.append(saving)
                try:
                    note = saving.apply(flow)
                    forward()
                    difference = largest_difference(plain, _taken(recorders))
                except torch.cuda.OutOfMemoryError:
                    raise
                except Exception as error:  # whatever a foreign model does with what it was not written for
                    reason, fix = f'fails here ({_first_line(error)})', 'leave it out'
                allowed = self.options.allowed(any(isinstance(item, HalfPrecision) for item in self._savings))
                if not reason and not difference.value <= allowed:
                    reason = (
                        f'changes what the teacher\'s recorder "{difference.recorder}" takes by {difference.value:.1e} '
                        f'of its norm, where {allowed:.1e} are allowed'
                    )
                if not reason:
                    self.verdicts.append(Verdict(saving.name, note, difference.value))
                    continue
                self._savings.pop()
                saving.undo()
                if asked:
                    raise DistillError(f'"{self.where}.{saving.name}" {reason}; {fix}.')
                self.refused.append(f'{saving.name} left out, since it {reason}')
                print_log(f'{self.where}: {self.refused[-1]}.', logger='current')
        self._verified |= set(recorders)
        if everything:
            for saving in self._savings:
                saving.settle()

    def mark(self) -> None:
        """The batch is on the device: a teacher in a stream of its own may begin."""
        for saving in self._savings:
            if isinstance(saving, OwnStream):
                saving.mark()

    def moved(self) -> None:
        """The model came to another device or type."""
        for saving in self._savings:
            saving.moved()

    def placed(self, batch: Tensor) -> Tensor:
        """The batch on the device of the teacher."""
        return next((item.inputs(batch) for item in self._savings if isinstance(item, OnDevice)), batch)

    @contextlib.contextmanager
    def running(self, batch: Tensor) -> Iterator[Tensor]:
        """Around a forward pass.

        Args:
            batch: As the plain teacher takes it.

        Yields:
            The batch as the cheaper one does.
        """
        with contextlib.ExitStack() as stack:
            # In a stream of its own the teacher's batch is converted too.
            for saving in sorted(self._savings, key=lambda item: not isinstance(item, OwnStream)):
                stack.enter_context(saving.running())
                batch = saving.inputs(batch)
            yield batch

    def hand_over(self, recorders: Collection[BaseRecorder], batch: Tensor) -> None:
        """Turn records into what the plain teacher would have given.

        Args:
            recorders: Whose; they are filled.
            batch: The student's, whose device and precision they get.
        """
        ways = (ChannelsLast, HalfPrecision, OnDevice, OwnStream)
        if not any(isinstance(saving, ways) for saving in self._savings):
            return
        streams = any(isinstance(saving, OwnStream) for saving in self._savings)
        half = any(isinstance(saving, HalfPrecision) for saving in self._savings)

        def plain(item: Tensor) -> Tensor:
            if streams:
                item.record_stream(torch.cuda.current_stream(item.device))
            if half and item.dtype in HALF:
                item = item.to(batch.dtype)
            return (item if item.device == batch.device else item.to(batch.device)).contiguous()

        for recorder in recorders:
            if hasattr(recorder, 'convert'):
                recorder.convert(plain)
            else:
                recorder.data_buffer[:] = map_tensors(plain, recorder.data_buffer)

    def held(self) -> int:
        """Bytes that are held beside the model's own parameters and buffers."""
        return sum(saving.held() for saving in self._savings)

    def _candidates(self, home: torch.device, follows: bool) -> Iterator[tuple[Saving, bool]]:
        """What is to be tried, in order, and whether the user asked for it."""
        options = self.options
        if options.device is not None and torch.device(options.device) != home:
            yield OnDevice(self.model, options.device), True
        if options.fuse_bn is not False:
            yield FuseBN(self.model), options.fuse_bn is True
        if options.channels_last or (options.channels_last is None and channels_last_pays(self.model, home)):
            yield ChannelsLast(self.model), options.channels_last is True
        if options.dtype is not None:
            yield HalfPrecision(self.model, options.dtype), True
        if options.prepack:
            yield Prepack(self.model), True
        if options.compile and self._compiles:
            yield Compile(self.model), True
        if options.stream:
            yield OwnStream(self.model, follows), True


def channels_last_pays(model: nn.Module, device: torch.device) -> bool:
    """Whether ``channels_last`` is tried where nobody says.

    Measured was on CPUs alone: networks without dilation gain a little, those with it, as segmentors have, lose.
    """
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    return device.type == 'cpu' and all(max(module.dilation) == 1 for module in convolutions)


def largest_difference(plain: Records, other: Records) -> Difference:
    """Compare the records of two passes.

    Args:
        plain: Of the plain pass, on any device.
        other: Of the pass to judge.

    Returns:
        The largest difference; infinite where records differ in number, shape or whole numbers.
    """
    worst = Difference(0.0, next(iter(plain), ''))
    for name, items in plain.items():
        others = other.get(name, [])
        same = [item.shape for item in items] == [item.shape for item in others]
        for item, found in zip(items, others) if same else ():
            found = found.to(item.device)
            if not item.is_floating_point():
                value = 0.0 if torch.equal(item, found) else math.inf
            else:
                norm = float(item.double().norm())
                gap = float((item.double() - found.double()).norm())
                value = gap / norm if norm else (math.inf if gap else 0.0)
            if not value <= worst.value:
                worst = Difference(math.inf if math.isnan(value) else value, name)
        if not same:
            worst = Difference(math.inf, name)
    return worst


def _taken(recorders: Mapping[str, BaseRecorder]) -> dict[str, list[Tensor]]:
    """The tensors that recorders hold; the recorders forget them."""
    found = {}
    for name, recorder in recorders.items():
        found[name] = list(tensors_of(recorder.data_buffer))
        recorder.reset_data_buffer()
    return found


@contextlib.contextmanager
def _exact(device: torch.device) -> Iterator[None]:
    """Single precision as it stands: no autocast, and no shortened numbers in a GPU's convolutions."""
    kept = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = kept


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip('.')
