"""What is drawn: each function makes one kind of case."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Iterator
from typing import Any, Callable

from benchmarks.fuzz.case import CONFIG, EITHER, FINE, SCENES, WRONG, Case, Scene
from benchmarks.fuzz.files import DATA, WEIGHTS
from benchmarks.fuzz.values import STRANGE, right_method, right_value, typo, wrong_schedule
from mmkd_plugin.methods import Method
from mmkd_plugin.methods.lookup import known_methods

STEPS = 2
"""Length of a run."""

KINDS: dict[str, Callable[[random.Random], Case]] = {}
"""The kinds of cases by name."""

_PARTS = dict(Feature=[dict(type='PKDLoss'), dict(type='ChannelWiseDivergence'), dict(type='L2Loss')])


def draw_case(draw: random.Random) -> Case:
    """One case of a random kind."""
    return KINDS[draw.choice(list(KINDS))](draw)


def plain_case(kind: str, scene: Scene, recipes: list[str] | None = None) -> Case:
    """What a user writes in three lines, for a run of two steps."""
    recipe = [f'mmkd_plugin::{name}' for name in recipes or scene.recipes[:1]]
    return Case(
        kind,
        scene,
        bases=[f'mmkd_plugin::{scene.student}', *recipe],
        values=dict(
            distill=dict(teacher=f'mmkd_plugin::{scene.teacher}', teacher_ckpt=f'mmkd_plugin::{scene.weights}'),
            train_cfg=dict(max_iters=STEPS, val_interval=100),
            train_dataloader=dict(batch_size=2),
            default_hooks=dict(
                logger=dict(interval=1), checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=STEPS)
            ),
            work_dir='run',
        ),
    )


def _kind(function: Callable[[random.Random, Case], None]) -> Callable[[random.Random, Case], None]:
    name = function.__name__.strip('_').replace('_', ' ')

    def make(draw: random.Random) -> Case:
        scene = draw.choice(list(SCENES.values()))
        case = plain_case(name, scene, [draw.choice(scene.recipes)])
        function(draw, case)
        return case

    KINDS[name] = make
    return function


def _methods() -> dict[str, type[Method]]:
    return {name: kind for name, kind in known_methods().items() if issubclass(kind, Method)}


def _methods_for(scene: Scene) -> list[type[Method]]:
    return [kind for kind in _methods().values() if kind.task in ('', scene.task)]


def _own_methods(draw: random.Random, case: Case, count: int) -> None:
    """Replace the recipe's methods by random ones."""
    case.bases = case.bases[:1]
    case.values['runner_type'] = 'mmkd_plugin.DistillRunner'
    methods = {}
    for number, kind in enumerate(draw.sample(_methods_for(case.scene), count)):
        settings = right_method(draw, kind)
        if kind.__name__ in _PARTS:
            settings['loss'] = dict(draw.choice(_PARTS[kind.__name__]))
        methods[f'm{number}'] = settings
    case.distill['methods'] = methods


@_kind
def _right_blocks(draw: random.Random, case: Case) -> None:
    _own_methods(draw, case, draw.choice([1, 1, 2, 3]))
    case.sort = EITHER
    case.told = ', '.join(str(settings) for settings in case.distill['methods'].values())


@_kind
def _keys_with_a_slip(draw: random.Random, case: Case) -> None:
    _own_methods(draw, case, 1)
    method = case.distill['methods']['m0']
    method.setdefault('loss_weight', 1.0)
    where = draw.choice([case.distill, method])
    key = draw.choice(list(where))
    slip = typo(draw, key)
    known = _methods()[method['type']].settings() if where is method else {}
    if slip in known:
        return
    where[slip] = where.pop(key)
    case.sort, case.told = WRONG, f'"{slip}" instead of "{key}"'


@_kind
def _names_with_a_slip(draw: random.Random, case: Case) -> None:
    _own_methods(draw, case, 1)
    method = case.distill['methods']['m0']
    places = [(method, 'type'), (case.distill, 'teacher'), (case.distill, 'teacher_ckpt'), (case.values, 'runner_type')]
    if 'loss' in method:
        places.append((method['loss'], 'type'))
    where, key = draw.choice(places)
    word = where[key]
    where[key] = typo(draw, word)
    case.sort, case.told = WRONG, f'{key}={where[key]!r}'


@_kind
def _strange_values(draw: random.Random, case: Case) -> None:
    _own_methods(draw, case, 1)
    case.before = copy.deepcopy(case.values)
    method = case.distill['methods']['m0']
    kind = _methods()[method['type']]
    keys = [*kind.settings(), 'type']
    block = ['teacher', 'teacher_ckpt', 'trust_checkpoint', 'teacher_scale', 'teachers', 'methods', 'inherit']
    where, key = draw.choice([(method, draw.choice(keys))] * 3 + [(case.distill, draw.choice([*block, 'self_check']))])
    value = copy.deepcopy(draw.choice(STRANGE))
    settings = kind.settings()
    default = settings[key].default if where is method and key in settings else where.get(key)
    where[key] = value
    case.told = f'{key}={value!r}'
    same = value == default or value is None or key in ('self_check', 'trust_checkpoint')
    case.sort = FINE if same and not _not_finite(value) else EITHER


def _not_finite(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


@_kind
def _schedules(draw: random.Random, case: Case) -> None:
    _own_methods(draw, case, 1)
    case.distill['methods']['m0']['schedule'] = wrong_schedule(draw)
    case.sort, case.told = WRONG, f'schedule={case.distill["methods"]["m0"]["schedule"]!r}'


@_kind
def _several_teachers(draw: random.Random, case: Case) -> None:
    _own_methods(draw, case, 2)
    keys = {key: case.distill.pop(key) for key in ('teacher', 'teacher_ckpt')}
    case.distill['teachers'] = dict(a=dict(keys), b=dict(keys, loss_weight=0.5))
    names = draw.choice([('a', 'b'), ('a', 'a'), ('a', 'c'), ('a', None), ('b', ' ')])
    for method, name in zip(case.distill['methods'].values(), names):
        if name is not None:
            method['teacher'] = name
    case.sort = EITHER if set(names) <= {'a', 'b'} else WRONG
    case.told = f'teachers {names}'


@_kind
def _weights(draw: random.Random, case: Case) -> None:
    case.teacher_file = draw.choice(list(WEIGHTS))
    case.distill['teacher_ckpt'] = 'teacher.pth'
    case.sort, case.told = WEIGHTS[case.teacher_file][0], f'weights: {case.teacher_file}'


@_kind
def _data(draw: random.Random, case: Case) -> None:
    kinds = DATA[case.scene.task]
    case.data = draw.choice(list(kinds))
    case.sort, case.told = kinds[case.data][0], case.data


@_kind
def _runs(draw: random.Random, case: Case) -> None:
    """What is said outside the block."""
    told, sort, values = draw.choice(list(_of_runs(draw, case)))
    for key, value in values.items():
        if key == '_base_':
            case.bases = value
        elif value is _GONE:
            case.values.pop(key, None)
        else:
            case.values[key] = value
    case.told, case.sort = told, sort


_GONE = object()


def _of_runs(draw: random.Random, case: Case) -> Iterator[tuple[str, str, dict[str, Any]]]:
    slip = typo(draw, 'distill')
    yield 'the plain runner', WRONG, dict(runner_type='Runner')
    yield 'the flexible runner', WRONG, dict(runner_type='FlexibleRunner')
    yield f'"{slip}"', WRONG, {'distill': _GONE, slip: case.distill}
    yield 'a strategy', WRONG, dict(strategy=dict(type='ColossalAIStrategy'))
    yield 'no teacher', WRONG, dict(distill={})
    yield 'text for a block', WRONG, dict(distill='fgd')
    yield 'mixed precision on a CPU', EITHER, dict(optim_wrapper=dict(type='AmpOptimWrapper'))
    yield 'bfloat16', EITHER, dict(optim_wrapper=dict(type='AmpOptimWrapper', dtype='bfloat16'))
    yield 'accumulation', FINE, dict(optim_wrapper=dict(accumulative_counts=2))
    yield (
        'a huge learning rate',
        WRONG,
        dict(
            optim_wrapper=dict(optimizer=dict(_delete_=True, type='SGD', lr=1e12), clip_grad=None),
            train_cfg=dict(max_iters=6, val_interval=100),
        ),
    )
    yield 'an averaged copy', FINE, dict(custom_hooks=[dict(type='EMAHook')])
    yield 'one image in a batch', FINE, dict(train_dataloader=dict(batch_size=1))
    yield 'no optimizer', EITHER, dict(optim_wrapper=None)
    yield 'an unknown optimizer', WRONG, dict(optim_wrapper=dict(optimizer=dict(type='Adan')))
    yield 'an unknown optimizer option', WRONG, dict(optim_wrapper=dict(optimizer=dict(learning_rate=1.0)))
    yield 'the work folder is a file', WRONG, dict(work_dir=CONFIG)
    yield 'a second recipe', EITHER, dict(_base_=[*case.bases, f'mmkd_plugin::{draw.choice(case.scene.recipes)}'])
    yield 'a recipe with a slip', WRONG, dict(_base_=[case.bases[0], typo(draw, case.bases[1])])
    yield 'a key of the model', WRONG, dict(model=dict(distiller=dict(type='x')))


@_kind
def _options(draw: random.Random, case: Case) -> None:
    method = next(iter(_recipe_methods(case)))
    slip = typo(draw, 'distill')
    told, sort = draw.choice(
        [
            (f'{slip}.methods.{method}.loss_weight=0.5', WRONG),
            (f'distill.methods.{method}.{typo(draw, "loss_weight")}=0.5', WRONG),
            (f'distill.methods.{method}.loss_weight=0.5', FINE),
            (f'distill.methods.{method}.loss_weight=nan', WRONG),
            (f'distill.methods.{method}.loss_weight=much', WRONG),
            (f'distill.{typo(draw, "inherit")}=auto', WRONG),
            ('distill.inherit=auto', FINE),
            ('distill=None', EITHER),
            ('distill.methods=None', EITHER),
            (f'distill.methods.{method}=None', EITHER),
            (f'distill.methods.{method}.type={draw.choice(list(_methods()))}', EITHER),
            ('model.distiller.type=x', WRONG),
            ('nothing', WRONG),
            ('=1', WRONG),
            ('train_cfg.max_iters=two', WRONG),
            ('model.backbone.dept=18', WRONG),
            ('model.type=Retina', WRONG),
        ]
    )
    case.options = [told]
    case.told, case.sort = told, sort


def _recipe_methods(case: Case) -> dict[str, Any]:
    from mmengine.config import Config

    from mmkd_plugin.teachers import local_file

    return dict(Config.fromfile(local_file(case.bases[1])).distill.methods)


@_kind
def _commands(draw: random.Random, case: Case) -> None:
    """Other tools, with what fits and what does not."""
    others = [scene for scene in SCENES.values() if scene is not case.scene]
    other = f'{{configs}}/{draw.choice(others).weights}'
    own = f'{{configs}}/{case.scene.weights}'
    teacher = f'{{configs}}/{case.scene.teacher}'
    student = f'{{configs}}/{case.scene.student}'
    bad = draw.choice(['absent.pth', 'config.py', 'data', other])
    tool, arguments, sort = draw.choice(
        [
            ('test.py', [teacher, own], FINE),
            ('test.py', [CONFIG, own], WRONG),
            ('test.py', [student, bad], WRONG),
            ('test.py', [teacher, own, '--show-dir', 'shown'], FINE),
            ('test.py', [teacher, own, '--show-dir', CONFIG], WRONG),
            ('publish_checkpoint.py', [own, 'out.pth'], FINE),
            ('publish_checkpoint.py', ['teacher.pth', 'teacher.pth'], WRONG),
            ('publish_checkpoint.py', ['teacher.pth', './teacher.pth'], WRONG),
            ('publish_checkpoint.py', [own, 'data'], WRONG),
            ('publish_checkpoint.py', [draw.choice(['absent.pth', 'config.py', 'data']), 'out.pth'], WRONG),
            ('compare.py', [student, student], WRONG),
            ('compare.py', [student, 'absent.py'], WRONG),
            ('doctor.py', ['--nonsense'], WRONG),
            ('train.py', ['absent.py'], WRONG),
            ('train.py', ['data'], WRONG),
            ('train.py', [CONFIG, '--launcher', 'slurm'], WRONG),
            ('train.py', [CONFIG, '--launcher', 'pytorch'], WRONG),
            ('train.py', [CONFIG, '--amp'], EITHER),
            ('train.py', [CONFIG, '--resume', 'absent.pth'], WRONG),
            ('train.py', [CONFIG, '--resume', own], EITHER),
            ('train.py', [CONFIG, '--resume'], FINE),
            ('mmkd', ['print-config', CONFIG], FINE),
            ('mmkd', ['print-config', student], WRONG),
            ('mmkd', ['print-config', CONFIG, '-o', 'missing/x.py'], EITHER),
            ('mmkd', ['print-config', CONFIG, '-o', 'data'], WRONG),
            ('mmkd', ['layers', CONFIG], FINE),
            ('mmkd', ['layers', student], FINE),
            ('mmkd', ['layers', CONFIG, '--teacher', 'none'], WRONG),
            ('mmkd', ['visualize', 'mask', CONFIG, '--image-index', str(draw.choice([0, 10**6]))], EITHER),
            (
                'mmkd',
                ['visualize', 'similarity', CONFIG, own, '--image', 'data/absent.png', '--pixel', '1', '1'],
                WRONG,
            ),
            ('mmkd', [typo(draw, 'layers'), CONFIG], WRONG),
        ]
    )
    case.tool, case.arguments, case.sort = tool, arguments, sort
    case.teacher_file = 'no meta' if 'teacher.pth' in ' '.join(arguments) else ''
    case.told = ' '.join([tool, *arguments])


@_kind
def _right_values(draw: random.Random, case: Case) -> None:
    """One right value more, which must do something."""
    _own_methods(draw, case, 1)
    method = case.distill['methods']['m0']
    settings = _methods()[method['type']].settings()
    case.before = copy.deepcopy(case.values)
    key = draw.choice([name for name in settings if name not in ('teacher', 'schedule', 'schedules', 'share')])
    value = right_value(draw, settings[key])
    # 'auto' is one of the others, whichever fits.
    changed = key not in method and value not in (settings[key].default, 'auto')
    method[key] = value
    case.sort, case.told = EITHER if changed else FINE, f'{method["type"]}.{key}={value!r}'
