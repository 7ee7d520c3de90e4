"""The distiller: MMRazor's configurable one, made safe for mixed precision and for losses of several terms."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable, Mapping
from typing import Any, Callable, Dict, List

import torch
from torch import Tensor, nn

from mmkd_plugin.compat.razor import BaseRecorder, ConfigurableDistiller
from mmkd_plugin.distillers.balance import SETTLE, Balance
from mmkd_plugin.distillers.entries import OWN_KEYS, as_list, entries, logged_name, resized
from mmkd_plugin.distillers.schedule import Progress, WeightSchedule
from mmkd_plugin.errors import DistillError, nearest
from mmkd_plugin.registry import MODELS
from mmkd_plugin.utilities.compiling import compiled, require_compiler
from mmkd_plugin.utilities.nested import tensors_of
from mmkd_plugin.utilities.precision import full_precision
from mmkd_plugin.utilities.sharing import one_step

Measure = Callable[[Dict[str, List[Tensor]]], Dict[str, Tensor]]
"""Gives, for each method that is measured, what :meth:`Balance.update` takes."""


@MODELS.register_module()
class Distiller(ConfigurableDistiller):
    """Feed the losses from the recorders.

    It takes MMRazor's keys (``student_recorders``, ``teacher_recorders``, ``connectors``, ``distill_losses``,
    ``loss_forward_mappings``) and adds: a loss with ``terms`` has these scheduled and logged one by one; losses named
    ``<name>_level<i>`` are logged together; an argument may be a list of records, each with its own connector; an entry
    with ``like='<argument>'`` is resized bilinearly to the size of that argument, with aligned corners where it says
    ``align_corners=True``; a teacher recorder names its ``teacher``, the only one by default; losses run in float32
    whatever the precision of the models; weights follow schedules; records are released after the step.

    Attributes:
        terms: The weighted terms of this step by loss and name.
        keep: The losses whose arguments of this step are kept as they were, for a second look at them.
        kept: These arguments by loss, until the records are released.

    Args:
        schedules: Arguments of :class:`~mmkd_plugin.distillers.schedule.WeightSchedule` by loss, or by
            ``'<loss>.<term>'`` for one term, which then follows its own alone.
        balance: The methods whose weights find themselves: arguments of
            :class:`~mmkd_plugin.distillers.balance.Balanced` by name.
        settle: After which part of the run these weights are held.
        compile_losses: Whether torch compiles the losses when they are first called; one with a discriminator never.
        **kwargs: MMRazor's keys.
    """

    def __init__(
        self,
        schedules: dict[str, dict] | None = None,
        balance: dict[str, dict] | None = None,
        settle: float = SETTLE,
        compile_losses: bool = False,
        **kwargs: Any,
    ) -> None:
        if compile_losses:
            require_compiler()
        recorders = copy.deepcopy(kwargs.pop('teacher_recorders', None) or {})
        owners = {name: recorder.pop('teacher', None) for name, recorder in recorders.items()}
        # Parameters are drawn in this order, whatever the order of the config, which a printed one loses.
        for key in ('connectors', 'distill_losses', 'loss_forward_mappings'):
            kwargs[key] = dict(sorted((kwargs.get(key) or {}).items()))
        super().__init__(teacher_recorders=recorders, **kwargs)
        self.teacher_of: dict[str, str | None] = owners
        self.terms: dict[str, dict[str, Tensor]] = {}
        self.keep: set[str] = set()
        self.kept: dict[str, dict[str, Any]] = {}
        self.compile_losses = compile_losses
        self._compiled: dict[str, Callable[..., Any]] = {}
        self.progress: Progress | None = None
        self.schedules = {key: WeightSchedule(**values) for key, values in (schedules or {}).items()}
        self.balance = Balance(balance, settle) if balance else None
        self._terms_seen: set[str] = set()
        unknown = [key for key in self.schedules if key.partition('.')[0] not in self.distill_losses]
        if unknown:
            raise DistillError(
                f'The schedule "{unknown[0]}" is for no loss: {nearest(unknown[0], self.distill_losses)}'
            )
        balanced = [] if self.balance is None else list(self.balance.factors())
        unknown = [name for name in balanced if name not in self.distill_losses]
        if unknown:
            raise DistillError(f'The balance names no loss: {nearest(unknown[0], self.distill_losses)}')
        nameless = [name for name in self.distill_losses if 'loss' not in name]
        if nameless:
            raise DistillError(
                f'The distillation loss "{nameless[0]}" would only be logged, since MMEngine adds up what has "loss" '
                f'in its name; call it "loss_{nameless[0]}".'
            )
        for manager, side in ((self.student_recorders, True), (self.teacher_recorders, False)):
            idle = set(manager.recorders) - {record['recorder'] for record in self._records(from_student=side)}
            if idle:
                raise DistillError(
                    f'The {"student" if side else "teacher"} recorder "{sorted(idle)[0]}" is read by no loss; name it '
                    'in loss_forward_mappings or remove it.'
                )

    def init_weights(self) -> None:
        """Initialise connectors and losses, which MMRazor leaves out."""
        for part in (*self.connectors.values(), *self.distill_losses.values()):
            if hasattr(part, 'init_weights'):
                part.init_weights()

    def prepare_from_teachers(self, models: Mapping[str, nn.Module | None]) -> None:
        """Initialise each teacher's recorders; those that evaluate the student's samples learn where these lie.

        Args:
            models: The teachers by name; the recorders of one that is not there yet are initialised by whoever builds
                it.

        Raises:
            DistillError: If a recorder names a teacher that does not exist.
        """
        for name, recorder in self.teacher_recorders.recorders.items():
            if self.teacher_of[name] is None and len(models) == 1:
                self.teacher_of[name] = next(iter(models))
            teacher = str(self.teacher_of[name])
            if teacher not in models:
                raise DistillError(f'The recorder "{name}" is of teacher "{teacher}": {nearest(teacher, models)}')
            if models[teacher] is not None:
                recorder.initialize(models[teacher])
            if hasattr(recorder, 'follow'):
                recorder.follow(self.student_recorders)

    def recorders_of(self, teacher: str) -> dict[str, BaseRecorder]:
        """The recorders of one teacher by name."""
        recorders = self.teacher_recorders.recorders
        return {name: recorders[name] for name, owner in self.teacher_of.items() if owner == teacher}

    def follows_student(self, teacher: str) -> bool:
        """Whether what is recorded of one teacher depends on what the student does in the same step."""
        recorders = self.recorders_of(teacher).values()
        return any(getattr(recorder, 'follows_student', hasattr(recorder, 'follow')) for recorder in recorders)

    def reads_of(self, teacher: str) -> dict[str, list[tuple[int, Any]]]:
        """Which records of one teacher's recorders the losses read: the number of each, and the element of it."""
        found: dict[str, list[tuple[int, Any]]] = {name: [] for name in self.recorders_of(teacher)}
        for record in self._records(from_student=False):
            if record['recorder'] in found:
                found[record['recorder']].append((record.get('record_idx', 0), record.get('data_idx')))
        return found

    def active_losses(self) -> list[str]:
        """The losses that have a weight at this point of the run."""
        if not self.schedules:
            return list(self.loss_forward_mappings)
        return [name for name in self.loss_forward_mappings if self._factors(name)[1]]

    def factor(self, key: str) -> float:
        """The factor that schedules give a term, ``'<loss>.<term>'``, at this point of the run."""
        loss, _, term = key.partition('.')
        whole, _, own = self._factors(loss)
        return own.get(term, whole)

    def idle_parameters(self) -> list[nn.Parameter]:
        """Trained parameters that only losses without a weight at this point use."""
        active = self.active_losses()
        if len(active) == len(self.loss_forward_mappings):
            return []
        used = {id(parameter) for name in active for part in self._parts_of(name) for parameter in part.parameters()}
        return [item for item in self.parameters() if item.requires_grad and id(item) not in used]

    def recorders_read(self, from_student: bool) -> set[str]:
        """Names of the recorders of one side that this step's losses read."""
        return {record['recorder'] for record in self._records(from_student, self.active_losses())}

    def recording(self) -> contextlib.ExitStack:
        """A context in which the student's recorders take what this step's losses read."""
        active = self.active_losses()
        wanted = self.recorders_read(from_student=True)
        for name in self.teacher_records_needed(active):
            recorder = self.teacher_recorders.get_recorder(name)
            if getattr(recorder, 'samples', None) is not None:
                wanted.add(recorder.samples)
        stack = contextlib.ExitStack()
        for name in sorted(wanted):
            stack.enter_context(self.student_recorders.get_recorder(name))
        return stack

    def teacher_records_needed(self, losses: Iterable[str] | None = None) -> dict[str, int]:
        """How many records of each teacher recorder some losses read, by default all of them."""
        needed: dict[str, int] = {}
        for record in self._records(False, losses):
            name = record['recorder']
            needed[name] = max(needed.get(name, 0), record.get('record_idx', 0) + 1)
        return needed

    def compute_terms(self, measure: Measure | None = None) -> dict[str, dict[str, Tensor]]:
        """Run connectors and losses on this step's records.

        Args:
            measure: How gradients are measured, where weights that find themselves are due for that; it gets the terms
                that have a weight, by loss, as they are at their full weight and without the factor that is sought.

        Returns:
            The weighted terms by loss and term name; the key of a loss that returns one tensor is empty. Losses that
            have no weight at this point of the run are left out.

        Raises:
            DistillError: If a schedule names a term that its losses do not have.
        """
        self.terms = {}
        full: dict[str, list[Tensor]] = {}
        active = self.active_losses()
        found = {}
        with one_step():
            for name in active:
                arguments = self.arguments(name)
                found[name] = self._run(name, arguments)
                if name in self.keep:
                    self.kept[name] = arguments
        for name, values in found.items():
            full[name] = list(values.values())
            if self.schedules:
                self._terms_seen.update(values)
                whole, _, own = self._factors(name)
                full[name] = [value for term, value in values.items() if own.get(term, whole)]
                values = {term: value * own.get(term, whole) for term, value in values.items()}
            self.terms[name] = values
        if self.balance is not None:
            if measure is not None:
                self.balance.update(measure(full))
            for name, factor in self.balance.factors().items():
                if name in self.terms:
                    self.terms[name] = {term: value * factor for term, value in self.terms[name].items()}
        if self.schedules and len(active) == len(self.loss_forward_mappings):
            self._check_scheduled_terms()
        return self.terms

    def arguments(self, name: str, keys: Iterable[str] | None = None) -> dict[str, Any]:
        """What a loss is called with in this step: the records of its mapping, adapted and resized.

        Args:
            name: Of the loss.
            keys: The arguments wanted, with those that they are resized to; by default all.
        """
        mapping = self.loss_forward_mappings[name]
        if keys is not None:
            mapping = {key: mapping[key] for key in keys}
        arguments = {key: self._read(entry) for key, entry in mapping.items()}
        for key, entry in mapping.items():
            for index, record in enumerate(as_list(entry)):
                if 'like' not in record:
                    continue
                if isinstance(entry, list):
                    arguments[key][index] = resized(arguments[key][index], arguments[record['like']][index], record)
                else:
                    arguments[key] = resized(arguments[key], arguments[record['like']], record)
        return arguments

    def compute_distill_losses(self) -> dict[str, Tensor]:
        """MMRazor's entry point: the terms, levels added up."""
        return self.sum_levels(self.compute_terms())

    def sum_levels(self, terms: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
        """Add the levels of each loss up, term by term; a term that the loss is named after is not named twice."""
        total: dict[str, Tensor] = {}
        for name, values in terms.items():
            for term, value in values.items():
                key = logged_name(name, term)
                total[key] = total[key] + value if key in total else value
        return total

    def student_features(self, name: str) -> list[Tensor]:
        """The student's recorded features that a loss reads, before any connector."""
        return [feature for _, feature in self.student_taps(name)]

    def student_taps(self, name: str) -> list[tuple[str, Tensor]]:
        """:meth:`student_features`, each behind the path of the module that it was recorded at."""
        plain = ('recorder', 'record_idx', 'data_idx')
        found: list[tuple[str, Tensor]] = []
        for record in entries(self.loss_forward_mappings[name]):
            if record['from_student']:
                where = {key: record[key] for key in plain if key in record}
                source = self.student_recorders.get_recorder(record['recorder']).source
                found += [(source, item) for item in tensors_of(self.get_record(from_student=True, **where))]
        return [(source, feature) for source, feature in found if feature.is_floating_point()]

    def release_records(self) -> None:
        """Drop the recorded tensors, which would otherwise live until the next step."""
        for manager in (self.student_recorders, self.teacher_recorders):
            for recorder in manager.recorders.values():
                recorder.reset_data_buffer()
        self.terms, self.kept = {}, {}

    def _factors(self, loss: str) -> tuple[float, bool, dict[str, float]]:
        """The factor of a loss's terms, whether any term has one, and the factors of those with their own schedule."""
        if self.progress is None:
            raise DistillError(
                'The distiller has schedules but does not know how far the run is; add '
                "dict(type='mmkd_plugin.DistillStateHook') to custom_hooks."
            )
        schedule = self.schedules.get(loss)
        whole = 1.0 if schedule is None else schedule.factor(self.progress)
        own = {
            key.partition('.')[2]: item.factor(self.progress)
            for key, item in self.schedules.items()
            if key.startswith(f'{loss}.')
        }
        return whole, bool(whole or any(own.values())), own

    def _check_scheduled_terms(self) -> None:
        """Refuse schedules of terms that no loss has."""
        for key in self.schedules:
            term = key.partition('.')[2]
            if term and term not in self._terms_seen:
                raise DistillError(
                    f'A schedule is for the term "{term}", which the losses do not have: '
                    + nearest(term, [name for name in self._terms_seen if name])
                )

    def _parts_of(self, loss: str) -> list[nn.Module]:
        """A loss and the connectors before it."""
        read = entries(self.loss_forward_mappings[loss])
        names = [entry['connector'] for entry in read if entry.get('connector')]
        return [self.distill_losses[loss], *(self.connectors[name] for name in names)]

    def _run(self, name: str, arguments: dict[str, Any]) -> dict[str, Tensor]:
        """The terms of a loss, in float32; what it refuses is told as a mistake of the user, with the loss's name."""
        try:
            result = self._runnable(name)(**arguments)
        except ValueError as error:
            raise DistillError(f'In "{name}": {error}') from error
        except torch.cuda.OutOfMemoryError:
            raise
        except (AssertionError, IndexError, RuntimeError) as error:
            differing = self._other_widths(name, arguments)
            if differing:
                raise DistillError(
                    f'In "{name}": the loss cannot compare {differing} '
                    f'({(str(error) or type(error).__name__).splitlines()[0]}); adapt the student to the width of the '
                    'teacher, or choose another loss.'
                ) from error
            raise
        return result if isinstance(result, dict) else {'': result}

    def _runnable(self, name: str) -> Callable[..., Any]:
        """A loss as a function, compiled where that is wanted."""
        loss: Any = self.distill_losses[name]
        run = full_precision(loss.terms if hasattr(loss, 'terms') else loss.__call__)
        if not self.compile_losses or name in self.keep:
            return run
        if name not in self._compiled:
            self._compiled[name] = compiled(run)
        return self._compiled[name]

    def _other_widths(self, name: str, arguments: dict[str, Any]) -> str:
        """The shapes of the features that a loss compares although their widths differ; empty where these agree."""
        for key, entry in self.loss_forward_mappings[name].items():
            other = arguments.get(entry['like']) if isinstance(entry, dict) and 'like' in entry else None
            feature = arguments[key]
            if isinstance(feature, Tensor) and isinstance(other, Tensor) and feature.shape[1] != other.shape[1]:
                shapes = [' x '.join(map(str, item.shape)) for item in (feature, other)]
                return f'{key} of {shapes[0]} with {entry["like"]} of {shapes[1]}'
        return ''

    def _records(self, from_student: bool, losses: Iterable[str] | None = None) -> list[dict]:
        """The entries of some losses' mappings, by default of all, that read one side."""
        names = self.loss_forward_mappings if losses is None else losses
        mappings = [self.loss_forward_mappings[name] for name in names]
        return [record for mapping in mappings for record in entries(mapping) if record['from_student'] is from_student]

    def _read(self, entry: dict | list[dict]) -> Any:
        """The record of a mapping entry, behind its connector; a list of them where the entry is a list."""
        if isinstance(entry, list):
            return [self._read(record) for record in entry]
        return self.get_record(**{key: value for key, value in entry.items() if key not in OWN_KEYS})

    def _check_loss_forward_mappings(
        self, losses: Any, loss_forward_mappings: dict, student_recorders: Any, teacher_recorders: Any
    ) -> None:
        """Let MMRazor check every record of a list like a single one."""
        for name, mapping in loss_forward_mappings.items():
            for key, entry in mapping.items():
                for record in as_list(entry):
                    super()._check_loss_forward_mappings(
                        losses, {name: {key: record}}, student_recorders, teacher_recorders
                    )
