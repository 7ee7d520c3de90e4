"""Teachers of other families, and several of them in one block."""

from __future__ import annotations

import copy

import pytest
import torch
from _helpers.tiny import block, build, faster_rcnn, losses_of, retinanet, run_config, state_of
from mmengine.registry import MODELS
from mmengine.runner import Runner

from mmkd_plugin.block import expand_config
from mmkd_plugin.errors import DistillError
from mmkd_plugin.utilities.text import without_prefix

CWD = dict(type='Feature', loss=dict(type='mmrazor.ChannelWiseDivergence', tau=1, loss_weight=10))


def fcos(width: int = 24) -> dict:
    """An FCOS with levels of stride 8 to 32."""
    model = retinanet(width)
    model.update(type='FCOS', train_cfg=None)
    model['bbox_head'] = dict(
        type='FCOSHead', num_classes=2, in_channels=width, stacked_convs=1, feat_channels=16, strides=[8, 16, 32]
    )
    model['bbox_head'].update(regress_ranges=((-1, 64), (64, 128), (128, 1e8)), norm_cfg=dict(type='BN'))
    return model


def swin_mask_rcnn(width: int = 24) -> dict:
    """A Mask R-CNN on a Swin transformer."""
    model = copy.deepcopy(faster_rcnn(width))
    model['type'] = 'MaskRCNN'
    model['backbone'] = dict(
        type='SwinTransformer', embed_dims=8, depths=(1, 1, 1, 1), num_heads=(1, 2, 4, 8), window_size=4
    )
    model['roi_head']['mask_roi_extractor'] = model['roi_head']['bbox_roi_extractor']
    model['roi_head']['mask_head'] = dict(
        type='FCNMaskHead', num_convs=1, in_channels=width, conv_out_channels=8, num_classes=2
    )
    return model


def train(tmp_path, iterations=1, **changes):
    runner = build(run_config(tmp_path, iterations=iterations, **changes))
    runner.train()
    return runner


@pytest.mark.parametrize('teacher', [faster_rcnn(24), fcos(), swin_mask_rcnn()], ids=['faster', 'fcos', 'swin'])
def test_student_under_a_teacher_of_another_family(tmp_path, teacher):
    methods = dict(fgd=dict(type='FGD'), fgi=dict(type='FGI', base_size=28), cwd=CWD)
    runner = train(tmp_path, distill=block(teacher=teacher, methods=methods))
    names = [name for name in runner.message_hub.log_scalars if 'distill' in name]
    assert {name.split('_')[1] for name in names} == {'fgd', 'fgi', 'cwd'}
    assert all(value > 0 for name in names for value in losses_of(runner, without_prefix(name, 'train/')))
    distiller = runner.model.distiller
    assert len([name for name in distiller.distill_losses if name.startswith('loss_fgd')]) == 3


def test_levels_of_other_strides_are_resized(tmp_path):
    """A teacher without the stem's pooling has strides 4 to 16 where the student has 8 to 32, and other sizes."""
    teacher = retinanet(24)
    teacher['backbone'].update(strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2))
    teacher['neck'].update(start_level=3, num_outs=1)
    student = retinanet()
    student['neck'].update(start_level=3, num_outs=1)
    student['bbox_head']['anchor_generator']['strides'] = [32]
    runner = train(tmp_path, model=student, distill=block(teacher=teacher))
    entry = runner.model.distiller.loss_forward_mappings['loss_fgd_level0']
    assert entry['teacher']['like'] == 'student'
    assert losses_of(runner, 'distill.loss_fgd_foreground')[0] > 0


def two(**changes) -> dict:
    values = dict(
        teachers=dict(
            big=dict(teacher=retinanet(24), teacher_ckpt='random'),
            other=dict(teacher=fcos(20), teacher_ckpt='random'),
        ),
        methods=dict(fgd=dict(type='FGD', teacher='big'), cwd=dict(CWD, teacher='other')),
    )
    values.update(changes)
    return values


def test_two_teachers_give_what_each_gives_alone(tmp_path):
    both = two()
    # Of the student's width, so that no connector is drawn.
    both['teachers']['big']['teacher'], both['teachers']['other']['teacher'] = retinanet(16), fcos(16)
    for name, teacher in both['teachers'].items():
        torch.manual_seed(len(name))
        model = MODELS.build(teacher['teacher'])
        teacher['teacher_ckpt'] = str(tmp_path / f'{name}.pth')
        torch.save(dict(state_dict=model.state_dict()), teacher['teacher_ckpt'])
    together = train(tmp_path / 'both', distill=both)
    for method, name in (('fgd', 'big'), ('cwd', 'other')):
        methods = {method: {key: value for key, value in both['methods'][method].items() if key != 'teacher'}}
        alone = train(tmp_path / name, distill=dict(both['teachers'][name], methods=methods))
        for key in [key for key in alone.message_hub.log_scalars if f'loss_{method}' in key]:
            assert losses_of(alone, key[6:]) == losses_of(together, key[6:])


def test_weight_of_a_teacher_multiplies_its_methods(tmp_path):
    plain, halved = two(methods=dict(cwd=dict(CWD, teacher='other'))), two(methods=dict(cwd=dict(CWD, teacher='other')))
    halved['teachers']['other']['loss_weight'] = 0.5
    for values in (plain, halved):
        model = MODELS.build(values['teachers']['other']['teacher'])
        torch.manual_seed(0)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.05)
        values['teachers']['other']['teacher_ckpt'] = str(tmp_path / 'other.pth')
        torch.save(dict(state_dict=model.state_dict()), tmp_path / 'other.pth')
    values = [
        losses_of(train(tmp_path / name, distill=item), 'distill.loss_cwd')
        for name, item in (('plain', plain), ('halved', halved))
    ]
    assert values[1][0] == pytest.approx(0.5 * values[0][0])


def test_teacher_that_nobody_follows_is_not_built(tmp_path):
    distill = two(methods=dict(fgd=dict(type='FGD', teacher='big')))
    distill['teachers']['other'] = dict(teacher='nowhere.py')
    runner = train(tmp_path, distill=distill)
    assert list(runner.model.teachers) == ['big']


def test_printed_config_of_two_teachers_trains_to_the_same_numbers(tmp_path):
    cfg = run_config(tmp_path / 'block', iterations=2, distill=two())
    for name, teacher in cfg.distill.teachers.items():
        teacher['teacher_ckpt'] = str(tmp_path / f'{name}.pth')
        torch.save(dict(state_dict=MODELS.build(teacher['teacher']).state_dict()), teacher['teacher_ckpt'])
    from_block = build(cfg)
    from_block.train()
    printed = expand_config(cfg)
    printed.work_dir, printed.runner_type = str(tmp_path / 'printed'), None
    printed.experiment_name = 'printed'
    again = Runner.from_cfg(printed)
    again.train()
    assert losses_of(from_block, 'loss') == losses_of(again, 'loss')
    first, second = state_of(from_block), state_of(again)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_student_inherits_from_the_named_teacher(tmp_path):
    distill = two(inherit='big')
    distill['teachers']['big']['teacher'] = retinanet(16, depth=34)
    runner = build(run_config(tmp_path, iterations=1, distill=distill))
    algorithm = runner._build_algorithm(runner.model)
    algorithm.init_weights()
    ours, theirs = (item.bbox_head.retina_cls.weight for item in (algorithm.student, algorithm.teachers['big'].model))
    assert torch.equal(ours, theirs)


def of_other_classes(model: dict, names: tuple[str, ...], path) -> str:
    """A checkpoint of a model that was trained on classes of other names."""
    torch.save(dict(state_dict=MODELS.build(model).state_dict(), meta=dict(dataset_meta=dict(classes=names))), path)
    return str(path)


@pytest.mark.parametrize('names', [('bar', 'square'), ('cat', 'dog')])
def test_logits_of_other_classes_are_refused_and_features_are_not(tmp_path, names):
    teacher = retinanet(24)
    path = of_other_classes(teacher, names, tmp_path / 'teacher.pth')
    logits = dict(CWD, tap='bbox_head.retina_cls', same_classes=True)
    with pytest.raises(DistillError, match='trained on other classes'):
        train(tmp_path / 'logits', distill=dict(teacher=teacher, teacher_ckpt=path, methods=dict(cwd=logits)))
    train(tmp_path / 'features', distill=dict(teacher=teacher, teacher_ckpt=path, methods=dict(cwd=CWD)))


def test_number_of_classes_is_compared_where_names_are_unknown(tmp_path):
    teacher = retinanet(24)
    teacher['bbox_head']['num_classes'] = 5
    logits = dict(CWD, tap='bbox_head.retina_cls', same_classes=True)
    with pytest.raises(DistillError, match='are classes, 2 of the student and 5 of the teacher'):
        train(tmp_path, distill=block(teacher=teacher, methods=dict(cwd=logits)))


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(methods=dict(fgd=dict(type='FGD'))), 'fgd.teacher" is not set; name one of big, other'),
        (dict(methods=dict(fgd=dict(type='FGD', teacher='bgi'))), "is 'bgi', which is no teacher; name one of big"),
        (dict(teacher='x.py'), 'has "teachers" and "teacher"'),
        (dict(teachers=dict(big=3)), 'must be a dict such as'),
        (dict(teachers=dict(big=dict(techer='x'))), r'"distill.teachers.big.techer" is not a key'),
        (dict(teachers=dict(big=dict(loss_weight=-1.0), other={})), 'is -1.0; it must be a number of at least 0'),
        (dict(inherit=True), 'several teachers; name the one to inherit from'),
        (dict(inherit='bgi'), 'or the name of a teacher: big, other'),
    ],
)
def test_mistakes_are_one_sentence(tmp_path, changes, message):
    with pytest.raises(DistillError, match=message) as caught:
        build(run_config(tmp_path, distill=two(**changes)))
    assert '\n' not in str(caught.value)


def test_missing_checkpoint_of_one_of_several_is_named(tmp_path):
    distill = two()
    del distill['teachers']['other']['teacher_ckpt']
    with pytest.raises(DistillError, match='set distill.teachers.other.teacher_ckpt'):
        train(tmp_path, distill=distill)
