"""The checks that every method passes: a new method inherits them by naming its type and the models it is for."""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS
from typing_extensions import get_args, get_origin

from _helpers import tiny, tiny_seg
from mmkd_plugin.algorithms import DistillAlgorithm
from mmkd_plugin.algorithms.gradients import Pull
from mmkd_plugin.block import DistillBlock, expand_block, expand_config
from mmkd_plugin.distillers.schedule import Progress
from mmkd_plugin.errors import DistillError
from mmkd_plugin.methods import Method, Parts
from mmkd_plugin.methods.lookup import find_method
from mmkd_plugin.probe.models import ModelPair, probe
from mmkd_plugin.teachers import build_teacher, model_config
from mmkd_plugin.utilities.settings import Above, AtLeast, Setting, Within, check

COMMON = ('teacher', 'schedule', 'schedules', 'share')
"""Keys of every method that say nothing of its losses."""


class MethodTester:
    """Base of the methods' test classes.

    Attributes:
        method: The smallest dict that a user writes.
        segments: Whether it is for segmentors rather than detectors.
        changes: Other keys under which each key is changed, with the key itself where its type does not say what else
            it may be: ``dict(tap=dict(tap='backbone.layer3'))``.
        renamed: What is told to who writes a key that is no more.
        term: A term of its losses, as a schedule names it; empty where they return one tensor.
        other: What a user writes where the teacher is of another family; None where the method does not allow that.
        refusal: What is said about a teacher of another family where the method does not allow it.
    """

    method: dict[str, Any] = {}
    segments = False
    changes: dict[str, dict[str, Any]] = {}
    renamed: dict[str, str] = {}
    term = ''
    other: dict[str, Any] | None = None
    refusal = ''

    def student(self) -> dict[str, Any]:
        """Config of the student."""
        return tiny_seg.pspnet() if self.segments else tiny.retinanet()

    def teacher(self) -> dict[str, Any]:
        """Config of a teacher of the student's family."""
        return tiny_seg.pspnet(width=24) if self.segments else tiny.retinanet(width=24)

    def stranger(self) -> dict[str, Any]:
        """Config of a teacher of another family."""
        from _helpers.tiny_families import deeplab

        return deeplab() if self.segments else tiny.faster_rcnn(width=24)

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run the checks of single keys on every key of the method."""
        settings = type(self).kind().settings()
        if 'key' in metafunc.fixturenames:
            metafunc.parametrize('key', [key for key in settings if key not in COMMON])
        if 'old' in metafunc.fixturenames:
            metafunc.parametrize('old', {'weight': 'loss_weight', **self.renamed}.items(), ids=lambda item: item[0])

    def test_key_reaches_a_loss_or_its_wiring(self, key: str) -> None:
        extra = self.changes.get(key, {})
        before = {**self.method, **{name: value for name, value in extra.items() if name != key}}
        values = [extra[key]] if key in extra else others(self.kind().settings()[key])
        assert values, f'say in changes what else {key} may be'
        expected = self.expand(before)
        assert any(self.expand({**before, key: value}) != expected for value in values)

    def test_key_has_a_meaning(self, key: str) -> None:
        """The docstring of the method or its loss says what it does; the documentation's table reads it there."""
        assert self.kind().settings()[key].meaning.endswith('.')

    def test_wrong_type_is_told_by_its_path(self, key: str) -> None:
        setting = self.kind().settings()[key]
        wrong = list(refused(setting.hint))
        assert wrong, f'{key} takes whatever a user writes'
        for value in wrong:
            message = self.refusal_of(**{key: value})
            assert message.startswith(f'"distill.methods.x.{key}" is {value!r}; it must be '), message

    def test_mistyped_key_is_told_with_the_nearest(self, key: str) -> None:
        wrong = key[:-1] if key[:-1] not in self.kind().settings() else f'{key}s'
        message = self.refusal_of(**{wrong: 1})
        assert message.startswith(f'"distill.methods.x.{wrong}" is not a key')
        assert f'"{key}"' in message

    def test_mistyped_word_is_told_with_the_nearest(self, key: str) -> None:
        words = [word for word in _words(self.kind().settings()[key].hint) if isinstance(word, str)]
        for word in words:
            assert f"'{word}'" in self.refusal_of(**{key: f'{word}{word[-1]}'})

    def test_renamed_key_is_told_with_its_new_name(self, old: tuple[str, str]) -> None:
        key, new = old
        message = self.refusal_of(**{key: 1.0})
        assert message == f'"distill.methods.x.{key}" is now called otherwise; write {new}.'
        assert re.match(r'\w+', new)[0] in self.kind().settings()  # type: ignore[index]

    def test_weight_zero_is_off(self) -> None:
        assert not self.block(dict(self.method, loss_weight=0)).methods
        assert set(self.block(dict(self.method, loss_weight=0.1)).methods) == {'x'}

    def test_weight_multiplies_every_term(self) -> None:
        whole, half = (self.losses(self.build(dict(self.method, loss_weight=weight))) for weight in (0.4, 0.2))
        terms = [name for name in whole if name.startswith('distill.')]
        assert terms
        for name in terms:
            torch.testing.assert_close(2 * half[name], whole[name])

    def test_weight_that_finds_itself_gives_the_share(self) -> None:
        """On one batch, over which nothing changes, the gradient of the method comes to its share."""
        model = self.build(dict(self.method, loss_weight='auto', share=0.25))
        ratios = []

        def observe(algorithm: DistillAlgorithm, losses: dict) -> None:
            terms = algorithm.distiller.terms
            pull = Pull([value for values in terms.values() for value in values.values()], list(terms))
            task, own = algorithm.compare_gradients(losses, {'x': pull})['x'].sqrt().tolist()
            ratios.append(own / task)

        model.step_observers.append(observe)
        losses = [self.repeated(model) for _ in range(4)]
        assert ratios == pytest.approx(4 * [0.25], rel=0.02)
        assert losses[-1]['distill.x_weight'] > 0
        plain = self.losses(self.build(self.method))
        factor = losses[0]['distill.x_weight'] / self.block(self.method).methods['x'].begins_with()
        if 'loss_weight' in self.method:
            factor = factor * self.method['loss_weight']
        for name in [name for name in plain if name.startswith('distill.')]:
            torch.testing.assert_close(losses[0][name], factor * plain[name], rtol=1e-4, atol=1e-7)

    def repeated(self, model: Any) -> dict[str, Any]:
        """The losses of the same step once more; batch statistics and power iterations begin anew."""
        state = copy.deepcopy((model.state_dict(), model.distiller.distill_losses.state_dict()))
        found = self.losses(model)
        for adversary in model.adversaries.values():
            adversary.compute(0)
        model.load_state_dict(state[0])
        model.distiller.distill_losses.load_state_dict(state[1])
        return found

    def test_parsing_and_expanding_twice_changes_nothing(self) -> None:
        """The dict, and what it is parsed to, are read alone; a weight of the teacher is not applied twice."""
        teachers = dict(one=dict(teacher=None, loss_weight=0.5))
        written = dict(teachers=teachers, methods=dict(x=dict(self.method, loss_weight=0.4)))
        before = copy.deepcopy(written)
        first, second = (DistillBlock.parse(written).methods['x'] for _ in range(2))
        assert written == before and first == second
        parts = [first.expand('x', self.pair()) for _ in range(2)]
        assert parts[0] == parts[1] and first == second and written == before
        half = self.expand(dict(self.method, loss_weight=0.2))
        assert parts[0].distill_losses == half.distill_losses

    def test_schedules_reach_all_losses(self) -> None:
        plan = dict(start=3)
        parts = self.expand(dict(self.method, schedule=plan))
        assert parts.schedules == {loss: plan for loss in parts.distill_losses}
        if self.term:
            parts = self.expand(dict(self.method, schedules={self.term: plan}))
            assert parts.schedules == {f'{loss}.{self.term}': plan for loss in parts.distill_losses}

    def test_schedule_silences_the_terms(self) -> None:
        model = self.build(dict(self.method, schedule=dict(start=1)))
        for iteration, there in ((0, False), (1, True)):
            model.distiller.progress = Progress(iteration, 0, 10, 1)
            assert any(name.startswith('distill.') for name in self.losses(model)) is there

    def test_mistaken_schedule_is_told_by_its_path(self) -> None:
        assert '"distill.methods.x.schedule.strat"' in self.refusal_of(schedule=dict(strat=3))
        assert '"distill.methods.x.schedules.y.strat"' in self.refusal_of(schedules=dict(y=dict(strat=3)))

    def test_printed_config_has_the_losses_of_the_block(self) -> None:
        written = self.config(self.method)
        printed = Config.fromstring(expand_config(written).pretty_text, '.py')
        found = [self.losses(initialised(lambda: from_block(written)))]
        found.append(self.losses(initialised(lambda: MODELS.build(printed.model))))
        assert any(name.startswith('distill.') for name in found[0])
        assert found[0] == found[1]

    def test_teacher_of_another_family(self) -> None:
        if self.other is None:
            with pytest.raises(DistillError, match=self.refusal) as caught:
                self.build(self.method, teacher=self.stranger())
            assert self.refusal and '\n' not in str(caught.value)
            return
        losses = self.losses(self.build(self.other, teacher=self.stranger()))
        terms = {name: value for name, value in losses.items() if name.startswith('distill.')}
        assert terms and all(torch.isfinite(value) and value != 0 for value in terms.values())

    @classmethod
    def kind(cls) -> type[Method]:
        """The method's class."""
        return find_method(cls.method['type'], 'type')

    @classmethod
    @functools.lru_cache(maxsize=None)
    def pair(cls) -> ModelPair:
        """What both models can be asked for."""
        student, teacher = (MODELS.build(ConfigDict(config)) for config in (cls().student(), cls().teacher()))
        return ModelPair(probe(student, 'student'), probe(teacher, 'teacher'))

    def block(self, method: dict[str, Any]) -> DistillBlock:
        """The parsed block of the method alone."""
        return DistillBlock.parse(dict(teacher=None, methods=dict(x=method)))

    def expand(self, method: dict[str, Any]) -> Parts:
        """What the method adds to the algorithm."""
        return self.block(method).methods['x'].expand_scheduled('x', self.pair())

    def config(self, method: dict[str, Any], teacher: dict[str, Any] | None = None) -> Config:
        """A run with the method."""
        kit: Any = tiny_seg if self.segments else tiny
        distill = dict(teacher=teacher or self.teacher(), teacher_ckpt='random', methods=dict(x=method))
        return kit.run_config('unused', model=self.student(), distill=distill)

    def build(self, method: dict[str, Any], teacher: dict[str, Any] | None = None) -> Any:
        """The distilled model, ready to train."""
        return initialised(lambda: MODELS.build(expand_config(self.config(method, teacher)).model))

    def losses(self, model: Any) -> dict[str, Any]:
        """The losses of one step."""
        kit: Any = tiny_seg if self.segments else tiny
        torch.manual_seed(1)
        return model(**kit.batch(model), mode='loss')

    def refusal_of(self, **keys: Any) -> str:
        """What is said to a user before any model is built: neither model of this config could be."""
        distill = dict(teacher=dict(type='NoModel'), teacher_ckpt='random', methods=dict(x=dict(self.method, **keys)))
        with pytest.raises(DistillError) as caught:
            expand_config(Config(dict(model=dict(type='NoModel'), distill=distill)))
        message = str(caught.value)
        assert '\n' not in message and message.endswith(('.', '?'))
        return message


def from_block(cfg: Config) -> DistillAlgorithm:
    """The model of a run with a ``distill`` block, put together as the runner does."""
    block = DistillBlock.parse(cfg.distill)
    student = MODELS.build(cfg.model)
    loaded = {
        name: build_teacher(model_config(item.teacher), item.teacher_ckpt)
        for name, item in block.used_teachers().items()
    }
    models = {name: teacher.model for name, teacher in loaded.items()}
    return DistillAlgorithm(student, **expand_block(block, student, models, dict(loaded)))


def initialised(build: Callable[[], Any]) -> Any:
    """A model that is built and initialised from one seed, in training mode."""
    torch.manual_seed(0)
    model = build().train()
    model.init_weights()
    return model


def others(setting: Setting) -> list[Any]:
    """Values that a setting may have besides its default."""
    return [value for value in _values(setting.hint) if value != setting.default and _valid(value, setting.hint)]


def refused(hint: Any) -> Iterator[Any]:
    """Values that a type does not allow: of another type, not finite, and just out of its range."""
    parts = _parts(hint)
    kinds = {_kind(part) for part in parts}
    if Any in kinds:
        return
    yield {1}
    if not {float, int} & kinds:
        yield 1.5
    for kind, value in ((str, 'word'), (bool, True), (dict, dict(a=1)), (list, ['word'])):
        if kind not in kinds:
            yield value
    if int in kinds and float not in kinds:
        yield 1.5
    if {float, int} & kinds:
        yield from (float('nan'), float('inf'), float('-inf'), '1')
    for item in (item for part in parts for item in getattr(part, '__metadata__', ())):
        if isinstance(item, (Above, AtLeast)):
            yield item.bound - 1
        if isinstance(item, Above):
            yield item.bound
        if isinstance(item, Within):
            yield from (item.low - 0.1, item.high + 0.1)


def _kind(hint: Any) -> Any:
    """The plain type behind a hint, list for all sequences; a choice of words is none."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hasattr(hint, '__metadata__'):
        return _kind(arguments[0])
    if origin is None or 'Literal' in str(origin):
        return hint
    return dict if origin is dict else list


def _values(hint: Any) -> list[Any]:
    """Values of a type, before its range is asked."""
    origin, arguments = get_origin(hint), get_args(hint)
    parts = _parts(hint)
    if len(parts) > 1:
        return [value for part in parts for value in _values(part)]
    if hasattr(hint, '__metadata__'):
        return _values(arguments[0])
    if 'Literal' in str(origin):
        return list(arguments)
    if origin is tuple:
        return [[value for value, *_ in [_values(item)[index:] for item in arguments]] for index in (0, 1)]
    if origin is not None and origin is not dict:
        return [[value] for value in _values(arguments[0])]
    plain: dict[Any, list[Any]] = {bool: [True, False], int: [1, 2, 3], float: [0.25, 0.75, 1, 2.0]}
    return plain.get(hint, [])


def _words(hint: Any) -> list[Any]:
    """The words of a type."""
    return [word for part in _parts(hint) if 'Literal' in str(get_origin(part)) for word in get_args(part)]


def _parts(hint: Any) -> tuple[Any, ...]:
    """The types of a union, or the type itself."""
    return get_args(hint) if 'Union' in str(get_origin(hint)) else (hint,)


def _valid(value: Any, hint: Any) -> bool:
    """Whether a type allows a value."""
    try:
        check(value, hint, 'x')
    except DistillError:
        return False
    return True
