"""Find a model's levels, channels and strides by running it once."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from mmkd_plugin.errors import DistillError, nearest
from mmkd_plugin.probe.anatomy import auxiliary_heads, trunk_name
from mmkd_plugin.probe.boxes import BoxHead, BoxHeadPair, dense_head, roi_box_head
from mmkd_plugin.probe.taps import HeadTaps, Tap
from mmkd_plugin.recorders.priors import anchor_strides
from mmkd_plugin.utilities.rng import isolated_rng

PROBE_SIZES = (256, 512, 1024)
"""Sides in pixels of the images that a model is probed with, until it takes one; the first has two cells at the
coarsest usual stride, 128."""


@dataclasses.dataclass(frozen=True)
class LevelPair:
    """The taps of student and teacher at one stride."""

    student: Tap
    teacher: Tap


@dataclasses.dataclass(frozen=True)
class ModelTaps:
    """What can be recorded in one model.

    Attributes:
        name: Class of the model.
        output: The levels as the neck returns them.
        pre_norm: The levels before norm and activation.
        modules: Every module that returned one feature map, by path: a tap for each call.
        decode_head: Taps of a segmentor's decode head, None where it has none that returns a class map.
        auxiliary_heads: Those of its auxiliary heads.
        anchor_strides: Strides of the levels on which the head places anchors; empty where it places none.
        dense_head: The RPN or the one-stage head of a detector, None where it has none.
        roi_head: The RoI head of a detector, None where it has none.
    """

    name: str
    output: tuple[Tap, ...]
    pre_norm: tuple[Tap, ...]
    modules: dict[str, tuple[Tap, ...]] = dataclasses.field(default_factory=dict)
    decode_head: HeadTaps | None = None
    auxiliary_heads: tuple[HeadTaps, ...] = ()
    anchor_strides: tuple[int, ...] = ()
    dense_head: BoxHead | None = None
    roi_head: BoxHead | None = None

    def seen_at(self, scale: float) -> ModelTaps:
        """The same model on images that are larger by ``scale``, in pixels of the smaller ones."""
        return dataclasses.replace(
            self,
            output=tuple(tap.seen_at(scale) for tap in self.output),
            pre_norm=tuple(tap.seen_at(scale) for tap in self.pre_norm),
            modules={path: tuple(tap.seen_at(scale) for tap in taps) for path, taps in self.modules.items()},
            decode_head=None if self.decode_head is None else self.decode_head.seen_at(scale),
            auxiliary_heads=tuple(head.seen_at(scale) for head in self.auxiliary_heads),
            anchor_strides=tuple(int(stride / scale) for stride in self.anchor_strides),
            dense_head=None if self.dense_head is None else self.dense_head.seen_at(scale),
        )

    def anchor_level(self, stride: int) -> int | None:
        """Which of the head's levels places anchors on the neck's level of a stride; None where none does.

        A head with as many levels as the neck reads them in their order, whatever the strides are called.
        """
        level = next((tap for tap in self.output if tap.stride == stride), None)
        if level is not None and len(self.anchor_strides) == len(self.output):
            return level.data_idx or 0
        return self.anchor_strides.index(stride) if stride in self.anchor_strides else None

    def at(self, path: str) -> Tap:
        """The output of the first call of a module that the user names; raises as :meth:`calls` does."""
        return self.calls(path)[0]

    def calls(self, path: str) -> tuple[Tap, ...]:
        """The outputs of a module that the user names; a dense head's module is called once per level.

        Raises:
            DistillError: If no such module returned a feature map, with the nearest paths that did.
        """
        if path not in self.modules:
            raise DistillError(
                f'The tap "{path}" is no module of {self.name} that returns a feature map (N, C, H, W): '
                + nearest(path, self.modules)
            )
        return self.modules[path]


@dataclasses.dataclass(frozen=True)
class HeadPair:
    """The same head of student and teacher."""

    student: HeadTaps
    teacher: HeadTaps

    def require_same_classes(self) -> None:
        """Refuse class maps that cannot be compared class by class.

        Raises:
            DistillError: If the numbers of classes differ, or there is one channel for two classes.
        """
        ours, theirs = self.student.logits.channels, self.teacher.logits.channels
        if ours != theirs:
            raise DistillError(
                f"The student's {self.student.path} gives {ours} classes and the teacher's {self.teacher.path} "
                f'{theirs}, so their logits cannot be compared; choose a teacher of the same num_classes.'
            )
        if ours == 1:
            raise DistillError(
                f'The {self.student.path} gives one channel, whose softmax is the same everywhere; train student and '
                'teacher with out_channels=2.'
            )


@dataclasses.dataclass(frozen=True)
class ModelPair:
    """Student and teacher as a method sees them.

    Attributes:
        student: The student.
        teacher: The teacher; strides and anchors in pixels of the student's image.
        teacher_scale: Size of the teacher's image in the student's.
    """

    student: ModelTaps
    teacher: ModelTaps
    teacher_scale: float = 1.0

    def levels(self, tap: str) -> list[LevelPair]:
        """Match the levels of both models by stride.

        Args:
            tap: ``'output'`` or ``'pre_norm'``.

        Returns:
            The pairs from fine to coarse.

        Raises:
            DistillError: If no stride occurs in both.
        """
        return self.match(getattr(self.student, tap), getattr(self.teacher, tap))

    def match(self, students: Sequence[Tap], teachers: Sequence[Tap]) -> list[LevelPair]:
        """Match taps of both models by stride; arguments, result and error as in :meth:`levels`.

        Where no stride is common, each student level meets the nearest one of the teacher within a factor of two; what
        compares the two then resizes the teacher's map.
        """
        pairs, left = _match(students, teachers, 1)
        if not pairs:
            pairs, left = _match(students, teachers, 2)
            if pairs:
                print_log(
                    "Student and teacher have no level of the same stride; nearest ones are compared, the teacher's "
                    f'resized: {", ".join(f"{pair.student.stride:g} with {pair.teacher.stride:g}" for pair in pairs)}.',
                    'current',
                )
        if not pairs:
            raise DistillError(
                f'Student and teacher have no levels whose strides lie within a factor of two: '
                f'{[level.stride for level in students]} in {self.student.name}, '
                f'{sorted({level.stride for level in teachers})} in {self.teacher.name}; choose a teacher with such a '
                'level.'
            )
        if left:
            print_log(
                f'Student levels of stride {left} have no teacher level of that stride and are not distilled.',
                'current',
            )
        return pairs

    def box_heads(self, where: str, heads: str = 'all') -> list[BoxHeadPair]:
        """The box heads of both detectors.

        Args:
            where: The method's place in the block, for messages.
            heads: ``'all'``, ``'dense'`` or ``'roi'``.

        Returns:
            The pairs that the student has: the dense head, then the RoI head.

        Raises:
            DistillError: If the student has none, or the teacher lacks one of them.
        """
        remedy = f'set {where}.mu=1 and {where}.regression_weight=0'
        kinds = {'dense': 'dense_head', 'roi': 'roi_head'}
        wanted = list(kinds.values()) if heads == 'all' else [kinds[heads]]
        pairs = []
        for kind in wanted:
            student, teacher = getattr(self.student, kind), getattr(self.teacher, kind)
            if student is None:
                continue
            if teacher is None:
                raise DistillError(
                    f'The student, {self.student.name}, has a {student.path}, which the teacher, {self.teacher.name}, '
                    f'lacks; choose a teacher of the same family, or {remedy}.'
                )
            pairs.append(BoxHeadPair(student, teacher))
        if not pairs:
            raise DistillError(
                f'The student, {self.student.name}, has no {" or ".join(wanted)} whose boxes could be compared; choose '
                f'a detector that has, or {remedy}.'
            )
        return pairs

    def decode_heads(self) -> HeadPair:
        """The decode heads of both models.

        Raises:
            DistillError: If a model has none that returns one class map.
        """
        for role, model in (('student', self.student), ('teacher', self.teacher)):
            if model.decode_head is None:
                raise DistillError(
                    f'The {role}, {model.name}, has no decode_head with a module that returns its class map; the '
                    'method needs a segmentor of the encoder-decoder form.'
                )
        assert self.student.decode_head is not None and self.teacher.decode_head is not None
        return HeadPair(self.student.decode_head, self.teacher.decode_head)


def _match(students: Sequence[Tap], teachers: Sequence[Tap], ratio: float) -> tuple[list[LevelPair], list[int]]:
    """Pair each student tap with the nearest free teacher tap within a ratio of strides; the rest are strides left."""
    free, pairs, left = list(teachers), [], []
    for level in students:
        apart = [max(level.stride, other.stride) / min(level.stride, other.stride) for other in free]
        if apart and min(apart) <= ratio:
            pairs.append(LevelPair(level, free.pop(apart.index(min(apart)))))
        else:
            left.append(level.stride)
    return pairs, left


def probe(model: Any, role: str) -> ModelTaps:
    """Run a model once on a small image, or on a larger one where it must, and list its levels and heads.

    The levels are what the neck returns, or the backbone where there is no neck. A level that a convolution returned
    has its ``pre_norm`` tap there, inside a ``ConvModule`` before norm and activation. Where some levels come from a
    convolution, one that another module made or that the neck passes through is taken as the neck returns it, and one
    that a function made (by max-pooling, say) carries nothing of its own and has no such tap.

    Args:
        model: The detector or segmentor; its state is left as it was.
        role: ``'student'`` or ``'teacher'``, for messages.

    Returns:
        The levels from fine to coarse.

    Raises:
        DistillError: If the model has neither feature levels nor a decode head.
    """
    name = trunk_name(model)
    trunk = getattr(model, name, None)
    if trunk is None:
        raise DistillError(
            f'The {role}, {type(model).__name__}, has neither neck nor backbone; distillation needs a model of '
            'that form.'
        )
    watch = _Watch(model)
    training = [module for module in model.modules() if module.training]
    parameter = next(model.parameters())
    decode_head, auxiliary = None, []
    try:
        with isolated_rng(), torch.no_grad():
            model.eval()
            features, decode_head = _features(model, watch, role, parameter)
            result = watch.results.get(name)
            _run_dense_heads(model, features)
            auxiliary = [_probe_head(watch, path, head, features) for path, head in auxiliary_heads(model).items()]
    finally:
        watch.stop()
        for module in training:
            module.training = True
    outputs = result[-1] if result else None
    levels = list(outputs) if isinstance(outputs, (tuple, list)) else [outputs]
    single = not isinstance(outputs, (tuple, list))
    taps, inner, made = [], [], []
    for index, level in enumerate(levels):
        if not isinstance(level, Tensor) or level.dim() != 4:
            continue
        tap = watch.tap(name, level, data_idx=None if single else index)
        taps.append(tap)
        inside = [origin for origin in watch.origins_of(level) if origin[0].startswith(f'{name}.')]
        convolution = _convolution_of(inside, watch.modules)
        if convolution is not None:
            before = watch.results[convolution[0]][convolution[1]]
            inner.append(watch.tap(convolution[0], before, convolution[1]))
        elif watch.origins_of(level):
            made.append(tap)
    if not taps and decode_head is None:
        raise DistillError(
            f'The {name} of the {role}, {type(model).__name__}, returns no feature maps of the form (N, C, H, W).'
        )
    taps.sort(key=lambda tap: tap.stride)
    inner = sorted(inner + made, key=lambda tap: tap.stride) if inner else taps
    return ModelTaps(
        type(model).__name__,
        tuple(taps),
        tuple(inner),
        watch.taps(),
        decode_head,
        tuple(head for head in auxiliary if head is not None),
        anchor_strides(model),
        dense_head(model),
        roi_box_head(model),
    )


class _Watch:
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
            if path and all(map(_is_map, calls))
        }

    def tap(self, path: str, feature: Tensor, call: int = 0, data_idx: int | None = None) -> Tap:
        """The tap at which a feature was seen."""
        stride = round(self.size[1] / feature.shape[-1])
        nonnegative = bool((feature >= 0).all())
        return Tap(path, feature.shape[1], stride, call, data_idx, nonnegative, path in self.direct)


def _is_map(output: Any) -> bool:
    return isinstance(output, Tensor) and output.dim() == 4


def _features(model: Any, watch: _Watch, role: str, like: Tensor) -> tuple[Any, HeadTaps | None]:
    """Run a model's trunk and decode head on the smallest image that both take, or else the trunk.

    Returns:
        The features, and the taps of the decode head, None where it gave none.

    Raises:
        DistillError: If the trunk takes no image.
    """
    first, smallest = None, None
    for size in _sizes(model):
        try:
            features = _run_trunk(model, watch, size, like)
        except Exception as error:
            first = first or error
            continue
        watch.refused = False
        decode_head = _probe_decode_head(watch, model, features)
        if decode_head is not None or not watch.refused:
            return features, decode_head
        smallest = smallest or size
    if smallest is not None:
        return _run_trunk(model, watch, smallest, like), None
    raise DistillError(
        f'The {role}, {type(model).__name__}, cannot be run on an image of {PROBE_SIZES[0]} pixels or a larger one to '
        f'find its levels ({str(first).splitlines()[0]}); write the distiller config by hand or choose another one.'
    ) from first


def _run_trunk(model: Any, watch: _Watch, size: tuple[int, int], like: Tensor) -> Any:
    """The features of an image of noise."""
    watch.start(size)
    return model.extract_feat(torch.rand(1, 3, *size, device=like.device, dtype=like.dtype))


def _sizes(model: nn.Module) -> list[tuple[int, int]]:
    """Heights and widths to try: the usual one, the one that the model's preprocessor makes, larger ones."""
    own = getattr(getattr(model, 'data_preprocessor', None), 'size', None)
    usual = [(side, side) for side in PROBE_SIZES]
    return [usual[0], *([tuple(own)] if own else []), *usual[1:]]


def _run_dense_heads(model: nn.Module, features: Any) -> None:
    """Run a detector's dense heads, so that their modules are seen as well."""
    for name in ('rpn_head', 'bbox_head'):
        head = getattr(model, name, None)
        if isinstance(head, nn.Module):
            try:
                head(features)
            except Exception:  # A head that needs more than features, a decoder say, is not probed.
                continue


def _probe_decode_head(watch: _Watch, model: Any, features: Any) -> HeadTaps | None:
    """The taps of a segmentor's decode head; of several that refine each other, those of the last with a class map."""
    head = getattr(model, 'decode_head', None)
    if not isinstance(head, nn.ModuleList):
        return _probe_head(watch, 'decode_head', head, features) if isinstance(head, nn.Module) else None
    found: HeadTaps | None = None
    coarse: tuple[Any, ...] = ()
    for index, stage in enumerate(head):
        taps = _probe_head(watch, f'decode_head.{index}', stage, features, *coarse)
        if taps is None:
            break
        found, coarse = taps, (watch.results[taps.path][-1],)
    return found


def _probe_head(watch: _Watch, path: str, head: nn.Module, *inputs: Any) -> HeadTaps | None:
    """Run a segmentation head and find what returned its logits and the module that made the classifier's input.

    Heads return their class map alone or first. None where the head returns no class map, or needs other inputs.
    """
    watch.direct.add(path)
    try:
        outputs = head(*inputs)
    except Exception:  # A head that needs the data samples, say, is not probed.
        watch.refused = True
        return None
    index = 0 if isinstance(outputs, (tuple, list)) and outputs else None
    logits: Any = outputs if index is None else outputs[index]
    if not _is_map(logits) or logits.shape[1] != getattr(head, 'out_channels', logits.shape[1]):
        return None
    inside = [origin for origin in watch.origins_of(logits) if origin[0] != path]
    among = [origin for origin in watch.elements_of(logits) if origin[0] != path]
    feature: Any = None
    makers: list[tuple[str, int]] = []
    if inside:
        tap = watch.tap(inside[-1][0], logits, inside[-1][1])
        feature = watch.input_of(inside[0])
        makers = watch.origins_of(feature)
        while makers and all(isinstance(watch.modules[maker], _DropoutNd) for maker, _ in makers):
            behind = feature
            feature = watch.input_of(makers[0])
            # Dropout that does nothing returns what it took.
            makers = watch.origins_of(feature) if feature is not behind else []
        makers = [origin for origin in makers if not isinstance(watch.modules[origin[0]], _DropoutNd)]
    elif among:
        tap = watch.tap(among[-1][0], logits, *among[-1][1:])
    else:
        tap = watch.tap(path, logits, data_idx=index)
    return HeadTaps(
        path,
        tap,
        watch.tap(makers[-1][0], feature, makers[-1][1]) if makers and _is_map(feature) else None,
        bool(getattr(head, 'align_corners', False)),
        255 if getattr(head, 'ignore_index', None) is None else head.ignore_index,  # type: ignore[arg-type]
    )


def _convolution_of(origins: list[tuple[str, int]], modules: dict[str, nn.Module]) -> tuple[str, int] | None:
    """Path and call of the convolution among the modules that returned a level, or inside one of them.

    None where a function, or a module that is no convolution block, made the level.
    """
    for path, index in origins:
        while isinstance(getattr(modules[path], 'conv', None), nn.Module):
            path = f'{path}.conv'
        if isinstance(modules[path], nn.Conv2d):
            return path, index
    return None
