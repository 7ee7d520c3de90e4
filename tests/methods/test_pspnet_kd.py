"""Main and auxiliary logits in the block: heads, shares, and what is refused at expansion."""

from __future__ import annotations

import pytest
from _helpers.tiny_seg import block, pspnet, run_config
from mmengine.config import ConfigDict

from mmkd_plugin.block import DistillBlock, expand_config
from mmkd_plugin.errors import DistillError


def expanded(method: dict, **changes) -> ConfigDict:
    student = changes.pop('student', pspnet())
    return expand_config(run_config('unused', model=student, distill=block(method, **changes))).model


def test_defaults_are_the_methods():
    model = expanded(dict(type='PSPNetKD'))
    loss = model.distiller.distill_losses.loss_seg
    assert (loss.temperature, loss.hard_share, loss.aux_weight, loss.ignore_index) == (1.9, 0.25, 1.0, None)
    assert model.student_loss_weights == {'decode.loss': 0.25}
    assert model.teachers.teacher.same_classes


def test_each_input_is_its_own_head():
    mapping = expanded(dict(type='PSPNetKD')).distiller.loss_forward_mappings.loss_seg
    found = {key: (entry.recorder, entry.from_student) for key, entry in mapping.items()}
    assert found == {
        'student': ('decode_head_conv_seg', True),
        'teacher': ('teacher_decode_head_conv_seg', False),
        'student_aux': ('auxiliary_head_conv_seg', True),
        'teacher_aux': ('teacher_auxiliary_head_conv_seg', False),
        'label': ('batch', True),
    }


def test_shipped_wiring_compares_with_the_main_logits():
    model = expanded(dict(type='PSPNetKD', aux_target='main'), teacher=pspnet(24, auxiliary=False))
    assert model.distiller.loss_forward_mappings.loss_seg.teacher_aux.recorder == 'teacher_decode_head_conv_seg'


def test_corners_are_aligned_as_in_each_head():
    distiller = expanded(dict(type='PSPNetKD'), teacher=pspnet(24, align_corners=True)).distiller
    mapping = distiller.loss_forward_mappings.loss_seg
    found = {key: (entry.like, entry.align_corners) for key, entry in mapping.items() if key != 'label'}
    assert found == {
        'student': ('label', False),
        'teacher': ('label', True),
        'student_aux': ('label', False),
        'teacher_aux': ('label', False),
    }


def test_ignored_label_is_the_heads():
    loss = expanded(dict(type='PSPNetKD', ignore=True), student=pspnet(ignore_index=254)).distiller.distill_losses
    assert loss.loss_seg.ignore_index == 254


def test_several_auxiliary_heads():
    student, teacher = pspnet(), pspnet(24)
    student['auxiliary_head'] = [student['auxiliary_head'], dict(student['auxiliary_head'], in_index=1, in_channels=16)]
    mapping = expanded(dict(type='PSPNetKD', aux_target='main', aux_index=1), student=student, teacher=teacher)
    assert mapping.distiller.loss_forward_mappings.loss_seg.student_aux.recorder == 'auxiliary_head_1_conv_seg'
    with pytest.raises(DistillError, match=r'teacher.*no auxiliary head 1.*aux_weight=0'):
        expanded(dict(type='PSPNetKD', aux_index=1), student=student, teacher=teacher)


@pytest.mark.parametrize('role', ['student', 'teacher'])
def test_no_auxiliary_head_names_the_weight(role):
    with pytest.raises(
        DistillError, match=f'The {role}, EncoderDecoder, has no auxiliary head .*aux_weight=0'
    ) as caught:
        expanded(dict(type='PSPNetKD'), **{role: pspnet(auxiliary=False)})
    assert '\n' not in str(caught.value)
    assert (
        'teacher_aux'
        not in expanded(
            dict(type='PSPNetKD', aux_weight=0), **{role: pspnet(auxiliary=False)}
        ).distiller.loss_forward_mappings.loss_seg
    )


@pytest.mark.parametrize(
    ('method', 'changes', 'message'),
    [
        (dict(type='PSPNetKD'), dict(teacher=pspnet(classes=5)), r'gives 3 classes and the teacher.*5'),
        (
            dict(type='PSPNetKD', hard_share=1.5),
            {},
            r'"distill.methods.seg.hard_share" is 1.5; it must be a number from 0 to 1\.',
        ),
    ],
)
def test_mistakes_are_one_sentence(method, changes, message):
    with pytest.raises(DistillError, match=message) as caught:
        expanded(method, **changes)
    assert '\n' not in str(caught.value)


def test_two_methods_cannot_share_alpha():
    methods = dict(one=dict(type='PSPNetKD'), two=dict(type='PSPNetKD'))
    with pytest.raises(DistillError, match='weigh the student'):
        expanded({}, methods=methods)


def test_alpha_one_leaves_the_student_alone():
    assert not DistillBlock.parse(block(dict(type='PSPNetKD', hard_share=1, aux_weight=0))).methods
    assert 'student_loss_weights' not in expanded(dict(type='PSPNetKD', hard_share=1))
