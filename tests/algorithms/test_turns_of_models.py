"""Who runs first: a teacher, unless it is asked about what the student does in the step."""

from __future__ import annotations

import pytest
from _helpers.tiny import faster_rcnn, retinanet
from _helpers.tiny_chen import OFF, Step, build, expand

CASES = [
    pytest.param(retinanet, dict(hint_weight=0.5), 'teacher', id='features'),
    pytest.param(retinanet, dict(hard_share=0.5), 'teacher', id='anchors'),
    pytest.param(faster_rcnn, dict(hard_share=0.5, heads='dense'), 'teacher', id='anchors of two stages'),
    pytest.param(faster_rcnn, dict(hard_share=0.5, heads='roi'), 'student', id='RoIs that the student samples'),
]


@pytest.mark.parametrize(('model', 'keys', 'first'), CASES)
def test_the_teacher_waits_for_the_student_only_where_it_is_asked_about_it(model, keys, first):
    algorithm = build(expand(student=model(), teacher=model(width=24), **{**OFF, **keys}))
    order = []
    for name, side in (('student', algorithm.architecture), ('teacher', algorithm.teacher.model)):
        side.backbone.register_forward_hook(lambda *_, name=name: order.append(name))
    # The first forward pass of the teacher in a run compares what makes it cheaper with the plain one.
    Step(algorithm)
    del order[:]
    losses = Step(algorithm).losses
    assert order[0] == first and sorted(order) == ['student', 'teacher']
    assert any(name.startswith('distill.') and value > 0 for name, value in losses.items())
