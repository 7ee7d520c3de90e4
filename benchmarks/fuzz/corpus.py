"""Mistakes that users made, each with what it must come to; they are tried by every run of the tests."""

from __future__ import annotations

from typing import Any, Callable

from benchmarks.fuzz.case import CONFIG, EITHER, FINE, SCENES, WRONG, Case
from benchmarks.fuzz.draws import plain_case
from benchmarks.fuzz.files import DATA, WEIGHTS
from benchmarks.fuzz.trial import RUNS, SENTENCE

NAN, INF = float('nan'), float('inf')


def _block(case: Case, **keys: Any) -> None:
    case.distill.update(keys)


def _method(case: Case, **keys: Any) -> None:
    case.distill['methods'] = dict(keys)


def _values(case: Case, **keys: Any) -> None:
    case.values.update(keys)


def _alone(case: Case, name: str, **keys: Any) -> None:
    """One method, without a recipe."""
    case.bases = case.bases[:1]
    case.values['runner_type'] = 'mmkd_plugin.DistillRunner'
    _method(case, **{name: keys})


def _diverge(case: Case, **keys: Any) -> None:
    """A learning rate with which no weight stays finite."""
    _block(case, **keys)
    optimizer = dict(optimizer=dict(_delete_=True, type='SGD', lr=1e12), clip_grad=None)
    _values(case, optim_wrapper=optimizer, train_cfg=dict(max_iters=6, val_interval=100))


_PKD = dict(type='Feature', loss=dict(type='PKDLoss'))

_REFUSED: dict[str, dict[str, Callable[[Case], None]]] = {
    'retina': {
        'the plain runner': lambda case: _values(case, runner_type='Runner'),
        'the flexible runner': lambda case: _values(case, runner_type='FlexibleRunner'),
        'a schedule that never begins': lambda case: _method(case, fgd=dict(schedule=dict(start=5000))),
        'one of two methods never begins': lambda case: _method(
            case, pkd=dict(_PKD, schedule=dict(start=5000)), fgd=dict(schedule=dict(start=1))
        ),
        'a letter too little': lambda case: _values(case, distil=case.values.pop('distill')),
        'a strategy': lambda case: _values(case, strategy=dict(type='ColossalAIStrategy')),
        'a weight that is no number': lambda case: _method(case, fgd=dict(loss_weight=NAN)),
        'an infinite weight': lambda case: _method(case, fgd=dict(foreground_weight=INF)),
        'a loss weight that is no number': lambda case: _alone(
            case, 'pkd', type='Feature', loss=dict(type='PKDLoss', loss_weight=NAN)
        ),
        'an argument of a loss': lambda case: _alone(
            case, 'pkd', type='Feature', loss=dict(type='PKDLoss', lossweight=2)
        ),
        'text for a loss weight': lambda case: _alone(
            case, 'pkd', type='Feature', loss=dict(type='PKDLoss', loss_weight='1')
        ),
        'a loss over boxes': lambda case: _alone(case, 'x', type='Feature', loss=dict(type='FGILoss')),
        'a method for segmentors': lambda case: _alone(case, 'pixel', type='PixelWise'),
        'a key of the teacher': lambda case: _block(case, teachr_ckpt='x.pth'),
        'a key of a method': lambda case: _method(case, fgd=dict(temprature=1.0)),
        'a negative weight': lambda case: _method(case, fgd=dict(loss_weight=-1)),
        'methods as a list': lambda case: _block(case, methods=['fgd']),
        'an unknown teacher': lambda case: _method(case, fgd=dict(teacher='other')),
        'a block that is text': lambda case: _values(case, distill='fgd'),
        'a dict over text': lambda case: _block(case, teacher=dict(_delete_=True, type='RetinaNet')),
        'a distiller in the model': lambda case: _values(case, model=dict(distiller=dict(type='x'))),
        'mixed precision': lambda case: _values(case, optim_wrapper=dict(type='AmpOptimWrapper')),
        'the work folder is a file': lambda case: _values(case, work_dir=CONFIG),
        'no teacher config': lambda case: _block(case, teacher='absent.py'),
        'unlabelled images for a detector': lambda case: _block(case, unlabelled=dict(images='.')),
        'a learning rate that breaks everything': lambda case: _diverge(case),
        'the same without the self-check': lambda case: _diverge(case, self_check=False),
    },
    'pspnet': {
        'FGI on a segmentor': lambda case: _alone(case, 'fgi', type='FGI'),
        'FGD on a segmentor': lambda case: _alone(case, 'fgd', type='FGD'),
        'an optimizer with a slip': lambda case: _alone(
            case, 'holistic', type='Holistic', optimizer=dict(type='SDG', lr=1e-3)
        ),
        'a key of an optimizer': lambda case: _alone(
            case, 'holistic', type='Holistic', optimizer=dict(type='SGD', learning_rate=1e-3)
        ),
        'a schedule of an optimizer': lambda case: _alone(
            case, 'holistic', type='Holistic', param_scheduler=dict(type='PolyRL')
        ),
        'temperature that is no number': lambda case: _alone(case, 'kd', type='PSPNetKD', temperature=NAN),
        'an auxiliary head that is not there': lambda case: _alone(case, 'kd', type='PSPNetKD', aux_index=3),
        'one image in a batch': lambda case: _values(case, train_dataloader=dict(batch_size=1)),
        'a folder of unlabelled images that is not there': lambda case: _block(case, unlabelled=dict(images='absent')),
        'a key of the unlabelled images': lambda case: _block(case, unlabelled=dict(images='.', batchsize=2)),
    },
}
_RUN: dict[str, dict[str, Callable[[Case], None]]] = {
    'retina': {
        'three lines': lambda case: None,
        'two methods': lambda case: _method(case, pkd=_PKD),
        'a method taken away': lambda case: _method(case, fgd=None),
        'a weight of zero and no teacher': lambda case: _block(
            case, methods=dict(fgd=dict(loss_weight=0)), teacher_ckpt='absent.pth'
        ),
        'an averaged copy': lambda case: _values(case, custom_hooks=[dict(type='EMAHook')]),
        'a level that is not there': lambda case: _alone(case, 'pkd', **_PKD, levels=99),
        'no runner': lambda case: _values(case, runner_type=None),
    },
    'pspnet': {
        'three lines': lambda case: None,
        'a feature loss': lambda case: _alone(case, 'pkd', **_PKD),
    },
}


def corpus() -> dict[str, tuple[Case, str]]:
    """The cases by name, each with what it must come to."""
    found: dict[str, tuple[Case, str]] = {}
    for expected, scenes in ((SENTENCE, _REFUSED), (RUNS, _RUN)):
        for scene, edits in scenes.items():
            for name, edit in edits.items():
                case = plain_case('corpus', SCENES[scene])
                edit(case)
                case.told = name
                case.sort = WRONG if expected == SENTENCE else FINE
                found[f'{scene}: {name}'] = (case, expected)
    for name, (sort, _) in WEIGHTS.items():
        if sort != EITHER:
            case = plain_case('corpus', SCENES['retina'])
            case.sort, case.teacher_file, case.told = sort, name, name
            case.distill['teacher_ckpt'] = 'teacher.pth'
            found[f'weights: {name}'] = (case, SENTENCE if sort == WRONG else RUNS)
    for task, scene in (('detection', 'retina'), ('segmentation', 'pspnet')):
        for name, (sort, _) in DATA[task].items():
            if sort != EITHER:
                case = plain_case('corpus', SCENES[scene])
                case.sort, case.data, case.told = sort, name, name
                found[f'{scene}, data: {name}'] = (case, SENTENCE if sort == WRONG else RUNS)
    return found
