"""One training step: the student's task loss, the frozen teacher, the distillation losses."""

from __future__ import annotations

import functools
from typing import Any, Callable

import torch
from mmengine.dist import is_distributed
from mmengine.logging import print_log
from mmengine.model import BaseModel
from mmengine.registry import MODELS as ROOT_MODELS
from torch import Tensor, nn

from mmkd_plugin.algorithms.adversary import Adversary
from mmkd_plugin.algorithms.gradients import Pull, compare_gradients, losses_inside, shared_features
from mmkd_plugin.algorithms.inherit import inherit_weights
from mmkd_plugin.algorithms.labelled import labelled_alone
from mmkd_plugin.compat.checkpoint import build_safely
from mmkd_plugin.compat.razor import BaseAlgorithm
from mmkd_plugin.compat.recomputing import non_reentrant_checkpoints
from mmkd_plugin.distillers import Distiller
from mmkd_plugin.errors import DistillError, nearest
from mmkd_plugin.registry import MODELS
from mmkd_plugin.teachers import FrozenTeacher, LoadedTeacher, TeacherOptions, build_teacher
from mmkd_plugin.teachers.cache import CachedSource, CachedTeacher
from mmkd_plugin.utilities.mmcv_operators import accept_bfloat16
from mmkd_plugin.utilities.rng import isolated_rng
from mmkd_plugin.utilities.text import without_prefix

_STUDENT = 'architecture.'
"""Where the student lies in the module tree."""

_INSIDE_FSDP = '_fsdp_wrapped_module'
"""Where torch's ``FullyShardedDataParallel`` holds what it shards."""

_OF_TEACHERS = (
    'teacher',
    'teacher_ckpt',
    'teacher_options',
    'teacher_prefix',
    'trust_checkpoint',
    'same_classes',
    'teacher_scale',
)
"""What is said of each teacher by its name."""

StepObserver = Callable[['DistillAlgorithm', dict], None]
"""Called with the algorithm and the student's losses while the step's records and graph still exist."""


@MODELS.register_module()
class DistillAlgorithm(BaseAlgorithm):
    """A student trained by its own losses and by a frozen teacher.

    To everything outside it looks like the student: ``state_dict`` has the student's keys, loading accepts them, and
    an attribute it lacks is looked up in the student, so that hooks and checkpoints need not know about distillation.

    Args:
        architecture: The student, a config or a built model.
        teachers: The teachers by name, each a dict with ``teacher`` (a config or a built model), ``teacher_ckpt`` (path
            or address of its weights, ``'random'`` for none on purpose, None where ``teacher`` carries its weights
            already), ``teacher_prefix`` (the part of that file that holds the teacher, where several fit),
            ``trust_checkpoint`` (whether that file may run code of its own while it is read),
            ``teacher_scale`` (size of the images that it sees in those of the student), ``same_classes`` (whether its
            outputs are compared class by class, so that a teacher of other classes is refused) and ``teacher_options``
            (how its forward pass is made cheaper, :class:`mmkd_plugin.teachers.TeacherOptions`).
        distiller: Config of the distiller: recorders, connectors, losses and what reaches which.
        inherit: Whether the student's neck and heads start from the teacher's weights: True, False, ``'auto'`` for
            "where all of them agree in name and shape", or the name of one of several teachers.
        student_loss_weights: Factors on the student's own losses, by the start of their names (``'decode.loss'``), for
            methods that mix hard and soft losses; the others stay as they are.
        soft_terms: The term, ``'<loss>.<term>'``, that each of these factors makes room for: where a schedule lowers
            its weight, the factor rises to 1.
        adversaries: Optimizers and schedules of the losses with a discriminator, by the name of the loss; arguments of
            :class:`mmkd_plugin.algorithms.adversary.Adversary`.
        data_preprocessor: Preprocessor of the batch; the student's own by default.
        init_cfg: MMEngine initialisation of the whole.
    """

    architecture: BaseModel
    distiller: Distiller

    def __init__(
        self,
        architecture: dict | nn.Module,
        teachers: dict[str, dict] | None = None,
        distiller: dict | Distiller | None = None,
        inherit: bool | str = False,
        student_loss_weights: dict[str, float] | None = None,
        soft_terms: dict[str, str] | None = None,
        adversaries: dict[str, dict] | None = None,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
        **others: Any,
    ) -> None:
        if others:
            key = next(iter(others))
            by_name = 'write teachers=dict(teacher=dict(teacher=..., teacher_ckpt=...))'
            fix = by_name if key in _OF_TEACHERS else 'leave it out'
            raise DistillError(f'DistillAlgorithm has no "{key}"; {fix}.')
        if not teachers or distiller is None:
            raise DistillError(
                'DistillAlgorithm needs teachers=dict(teacher=dict(teacher=..., teacher_ckpt=...)) and a distiller.'
            )
        student = architecture if isinstance(architecture, nn.Module) else build_safely(architecture)
        super().__init__(student, data_preprocessor, init_cfg, module_inplace=True)
        keep_outputs(student)
        accept_bfloat16(student)
        self.inherit = inherit
        self.student_loss_weights = dict(student_loss_weights or {})
        self.soft_terms = dict(soft_terms or {})
        self._weighed = False
        with isolated_rng():
            self.distiller = distiller if isinstance(distiller, Distiller) else ROOT_MODELS.build(distiller)
        self.adversaries = {
            name: Adversary(self.distiller.distill_losses[name], **options)
            for name, options in (adversaries or {}).items()
        }
        self.distiller.keep = set(self.adversaries)
        self.teachers = {name: self._freeze(name, **options) for name, options in teachers.items()}
        self.distiller.prepare_from_student(self.architecture)
        # One whose records are kept is not built yet.
        models = {name: item.model if isinstance(item, FrozenTeacher) else None for name, item in self.teachers.items()}
        self.distiller.prepare_from_teachers(models)
        for name, frozen in self.teachers.items():
            frozen.watch(self.distiller.recorders_of(name))
            if isinstance(frozen, CachedTeacher):
                frozen.open(self.distiller.reads_of(name), self.distiller.teacher_records_needed())
        self.step_observers: list[StepObserver] = []
        self.shared_features: list[Tensor] = []
        self._register_load_state_dict_pre_hook(self._read_student_keys)

    def _freeze(
        self,
        name: str,
        teacher: dict | nn.Module | LoadedTeacher | CachedSource,
        teacher_ckpt: str | None = None,
        trust_checkpoint: bool = False,
        same_classes: bool = False,
        teacher_scale: float = 1.0,
        teacher_prefix: str | None = None,
        teacher_options: dict | None = None,
    ) -> FrozenTeacher | CachedTeacher:
        """Build one teacher, or what stands in its place until a record is missing."""
        where = 'teacher_options' if name == 'teacher' else f'teachers.{name}.teacher_options'
        options = TeacherOptions.parse(teacher_options or {}, where)
        options.require_machine(where)
        if isinstance(teacher, CachedSource):
            given: Any = dict(same_classes=same_classes, teacher_scale=teacher_scale, teacher_options=teacher_options)
            freeze: Any = functools.partial(self._freeze, name, **given)
            return CachedTeacher(teacher, freeze, teacher_scale, same_classes)
        if not isinstance(teacher, LoadedTeacher):
            teacher = build_teacher(teacher, teacher_ckpt, trust_checkpoint, teacher_prefix)
        keep_outputs(teacher.model)
        accept_bfloat16(teacher.model)
        return FrozenTeacher(teacher, self.data_preprocessor, teacher_scale, same_classes, options, where)

    @property
    def teacher(self) -> FrozenTeacher | CachedTeacher:
        """The teacher, or the first one where there are several."""
        return next(iter(self.teachers.values()))

    def inherited_teacher(self) -> FrozenTeacher | CachedTeacher | None:
        """The teacher whose neck and heads the student starts from, None for none."""
        if not self.inherit:
            return None
        return self.teachers.get(str(self.inherit), self.teacher)

    @property
    def student(self) -> nn.Module:
        """The model that is trained and saved, without what shards it (:meth:`wrap_student`)."""
        return getattr(self.architecture, _INSIDE_FSDP, self.architecture)

    def wrap_student(self, wrap: Callable[[nn.Module], nn.Module]) -> None:
        """Run the student inside a wrapper from now on.

        Args:
            wrap: Gets the student and gives a module that calls it and saves and loads a state with the student's keys,
                such as torch's ``FullyShardedDataParallel``. Teachers, connectors and losses stay outside.
        """
        self.architecture = wrap(self.architecture)

    def __getattr__(self, name: str) -> Any:
        """Fall back to the student for what the algorithm itself lacks."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__('architecture'), name)

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> DistillAlgorithm:
        """Move the teachers along with the student."""
        super()._apply(fn, *args, **kwargs)
        for teacher in self.teachers.values():
            teacher.apply_(fn)
        return self

    def init_weights(self) -> None:
        """Initialise the student as its own config says, then what distillation adds, then inherit."""
        self.architecture.init_weights()
        with isolated_rng():
            self.distiller.init_weights()
        teacher = self.inherited_teacher()
        if teacher is not None:
            print_log(inherit_weights(self.architecture, teacher.model, self.inherit), logger='current')
        for teacher in self.teachers.values():
            if isinstance(teacher, CachedTeacher):
                teacher.let_go()

    def loss(self, batch_inputs: Tensor, data_samples: list | None = None) -> dict[str, Tensor]:
        """Compute the student's losses and, prefixed with ``distill.``, the distillation terms.

        Images that are marked as unlabelled have no part in the student's losses.

        Args:
            batch_inputs: The preprocessed batch, ``(N, 3, H, W)``.
            data_samples: Its data samples.

        Returns:
            All losses by name; the student's keep their own names.
        """
        due = self._due()
        for teacher in self.teachers.values():
            teacher.mark()
        features = shared_features(self.student, bool(due or self.step_observers))
        labelled = labelled_alone(self.student, data_samples)
        before = losses_inside(self.architecture, self.student)
        recording = self.distiller.recording()
        needed = self.distiller.teacher_records_needed(self.distiller.active_losses())
        following = [teacher for name, teacher in self.teachers.items() if self.distiller.follows_student(name)]
        # While the student holds nothing yet for its backward pass, a teacher's own maps are no further memory.
        for teacher in self.teachers.values():
            if teacher not in following:
                teacher.run(batch_inputs, data_samples, needed)
        with recording, features as self.shared_features, labelled, non_reentrant_checkpoints(), before as inside:
            losses = self.architecture(batch_inputs, data_samples, mode='loss')
        hard = self._hard_weights()
        losses = weigh_losses(losses, hard, strict=not self._weighed)
        inner = weigh_losses(inside[0], hard, strict=False) if inside else losses
        self._weighed = True
        for teacher in following:
            teacher.run(batch_inputs, data_samples, needed)
        terms = self.distiller.compute_terms(functools.partial(self._measure, inner, due) if due else None)
        for name in terms.keys() & self.adversaries.keys():
            self.adversaries[name].remember(self.distiller.kept[name])
        for observe in list(self.step_observers):
            observe(self, inner)
        self.distiller.release_records()
        self.shared_features = []
        sums = self.distiller.sum_levels(terms)
        if is_distributed() and (idle := self.distiller.idle_parameters()):
            # Every process must see a gradient for every parameter, or the reducer waits for it.
            sums['loss_idle'] = 0 * torch.stack([parameter.sum() for parameter in idle]).sum()
        if self.distiller.balance is not None:
            # MMEngine adds up what has "loss" in its name.
            weights = self.distiller.balance.weights()
            sums.update({f'{name.replace("loss", "term")}_weight': value for name, value in weights.items()})
        return {**losses, **{f'distill.{name}': value for name, value in sums.items()}}

    def _due(self) -> list[str]:
        """The methods whose gradients are measured in this step, to find their weights."""
        balance = self.distiller.balance
        if balance is None or not self.training or not torch.is_grad_enabled():
            return []
        return balance.due(self.distiller.active_losses(), self.distiller.progress)

    def _measure(self, losses: dict[str, Any], due: list[str], terms: dict[str, list[Tensor]]) -> dict[str, Tensor]:
        """The gradients of some methods and of the task loss."""
        assert self.distiller.balance is not None
        pulls = {}
        for name in due:
            of_method = [loss for loss in self.distiller.balance.methods[name].losses if loss in terms]
            pulls[name] = Pull([value for loss in of_method for value in terms[loss]], of_method)
        return self.compare_gradients(losses, pulls)

    def compare_gradients(self, losses: dict[str, Any], pulls: dict[str, Pull]) -> dict[str, Tensor]:
        """Compare gradients with that of the student's own losses, in a step that is measured or observed.

        Args:
            losses: The student's losses.
            pulls: What is compared, by name.

        Returns:
            See :func:`mmkd_plugin.algorithms.gradients.compare_gradients`.
        """
        task = self.parse_losses(losses)[0]
        return compare_gradients(self.student, self.distiller, task, pulls, self.shared_features)

    def _hard_weights(self) -> dict[str, float]:
        """Factors on the student's own losses at this point of the run."""
        weights = dict(self.student_loss_weights)
        for name, term in self.soft_terms.items():
            weights[name] = 1 - self.distiller.factor(term) * (1 - weights[name])
        return weights

    def parse_losses(self, losses: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Add the losses up the way the student does."""
        return self.architecture.parse_losses(losses)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The student's state alone, with the student's own keys."""
        return self.architecture.state_dict(*args, **kwargs)

    def load_state_dict(self, state_dict: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Load a student's state; keys may be the student's own or those of this module's tree, which hooks go by."""
        plain = {without_prefix(key, _STUDENT): value for key, value in state_dict.items()}
        return self.architecture.load_state_dict(plain, *args, **kwargs)

    def _read_student_keys(self, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
        """Let loaders that walk the module tree find a plain student's keys.

        MMEngine walks the children itself instead of calling ``load_state_dict``; the distiller's current state is
        filled in so that it is not reported missing.
        """
        for key in [key for key in state_dict if key.startswith(prefix)]:
            plain = without_prefix(key[len(prefix) :], _STUDENT)
            state_dict[prefix + _STUDENT + plain] = state_dict.pop(key)
        for key, value in self.distiller.state_dict().items():
            state_dict[f'{prefix}distiller.{key}'] = value

    def extra_state(self) -> dict[str, Tensor]:
        """What resuming needs beyond the student: connectors and learned losses."""
        return self.distiller.state_dict()

    def load_extra_state(self, state: dict[str, Tensor]) -> None:
        """Restore :meth:`extra_state`.

        Raises:
            RuntimeError: If the state belongs to another distillation block.
        """
        self.distiller.load_state_dict(state)


def weigh_losses(losses: dict[str, Any], weights: dict[str, float], strict: bool = True) -> dict[str, Any]:
    """Multiply losses by the factors of their names' beginnings.

    Args:
        losses: Tensors, or lists of tensors, by name.
        weights: Factors by the start of a name.
        strict: Whether each factor must fit a loss; a batch without any RoI, for one, has fewer losses than others.

    Returns:
        The losses in the same order; those without a factor are the same objects.

    Raises:
        DistillError: If a factor fits no loss and must.
    """
    weighed = dict(losses)
    for start, weight in weights.items():
        names = [name for name in losses if name.startswith(start)]
        if not names and strict:
            raise DistillError(
                f'student_loss_weights names "{start}", but no loss of the student starts so: {nearest(start, losses)}'
            )
        for name in names:
            value = weighed[name]
            weighed[name] = [weight * item for item in value] if isinstance(value, list) else weight * value
    return weighed


def keep_outputs(model: nn.Module) -> None:
    """Switch in-place activations off, which would overwrite what a recorder holds; results stay the same.

    MMRazor's own switch walks ``OrderedDict`` only, which torch's module tables no longer are.
    """
    for module in model.modules():
        if getattr(module, 'inplace', False) is True:
            setattr(module, 'inplace', False)  # noqa: B010
