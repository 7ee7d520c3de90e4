"""Options of a teacher are checked before anything is run, and told in one sentence."""

from __future__ import annotations

import pytest
import torch
from _helpers.tiny import block, retinanet, run_config

from mmkd_plugin.block import DistillBlock, expand_config
from mmkd_plugin.errors import DistillError
from mmkd_plugin.teachers import TeacherOptions, options


@pytest.mark.parametrize(
    ('written', 'message'),
    [
        (dict(fuse_nb=True), r'"teacher_options.fuse_nb" is not a key of the distill block: did you mean "fuse_bn"\?'),
        (dict(dtype='bflot16'), r"dtype\" is 'bflot16'; it must be 'bfloat16' or 'float16' or None \(did you mean"),
        (dict(compile='yes'), r"compile\" is 'yes'; it must be True or False"),
        (dict(tolerance=0), 'tolerance" is 0; it must be a number above 0'),
        (3, '"teacher_options" is 3; it must be a dict'),
    ],
)
def test_mistakes(written, message):
    with pytest.raises(DistillError, match=message):
        TeacherOptions.parse(written)


@pytest.mark.skipif(torch.cuda.is_available(), reason='without a GPU')
@pytest.mark.parametrize(
    ('written', 'message'),
    [
        (dict(stream=True), '"teacher_options.stream" needs a GPU, and none is visible; leave it out.'),
        (dict(device='cuda:1'), '"teacher_options.device" is \'cuda:1\', but no GPU is visible; name one'),
    ],
)
def test_without_a_gpu(written, message):
    with pytest.raises(DistillError, match=message):
        TeacherOptions.parse(written).require_machine()


@pytest.mark.parametrize(
    ('device', 'message'),
    [
        ('coda:1', "is 'coda:1'; it must be a device such as 'cuda:1' or 'cpu'."),
        ('meta', "is 'meta', a device that holds no numbers; name a GPU such as 'cuda:1'."),
    ],
)
def test_devices(device, message):
    with pytest.raises(DistillError, match=message):
        TeacherOptions(device=device).require_machine()
    TeacherOptions(device='cpu').require_machine()


def test_prepacking():
    with pytest.raises(DistillError, match='and "teacher_options.prepack" cannot go together, .* leave one of them'):
        TeacherOptions(compile=True, prepack=True).require_machine()
    with pytest.raises(DistillError, match='prepack" is for a teacher on a CPU, and this one runs on "cuda:0"; leave'):
        TeacherOptions(prepack=True).require_home(torch.device('cuda:0'))


def test_no_compiler(monkeypatch):
    monkeypatch.delattr(torch, 'compile')
    with pytest.raises(DistillError, match='"teacher_options.compile" needs torch 2.0 or newer'):
        TeacherOptions(compile=True).require_machine()


def test_precision_that_the_cpu_lacks(monkeypatch):
    home = torch.device('cpu')
    monkeypatch.setattr(options, '_cpu_computes', lambda dtype: dtype == 'bfloat16')
    TeacherOptions(dtype='bfloat16').require_home(home)
    with pytest.raises(DistillError, match="does not compute; leave it out, or write dtype='bfloat16'."):
        TeacherOptions(dtype='float16').require_home(home)
    monkeypatch.setattr(options, '_cpu_computes', lambda dtype: False)
    with pytest.raises(DistillError, match="is 'bfloat16', in which this CPU does not compute; leave it out.$"):
        TeacherOptions(dtype='bfloat16').require_home(home)


def test_stream_of_a_teacher_on_the_cpu():
    with pytest.raises(DistillError, match='is for a teacher on a GPU, and this one runs on "cpu"; leave it out.'):
        TeacherOptions(stream=True).require_home(torch.device('cpu'))


def test_tolerance():
    assert TeacherOptions().allowed(half=False) == 1e-4
    assert TeacherOptions(dtype='bfloat16').allowed(half=True) == 0.05
    assert TeacherOptions(dtype='float16').allowed(half=True) == 0.01
    assert TeacherOptions(dtype='float16', tolerance=1).allowed(half=True) == 1


def test_a_block_is_checked_with_its_path():
    with pytest.raises(DistillError, match='"distill.teacher_options.fuse" is not a key'):
        DistillBlock.parse(block(teacher_options=dict(fuse=True)))
    teachers = dict(big=dict(teacher=None, teacher_options=dict(fuse=True)))
    with pytest.raises(DistillError, match='"distill.teachers.big.teacher_options.fuse" is not a key'):
        DistillBlock.parse(dict(teachers=teachers, methods=dict(fgd=dict(type='FGD'))))


def test_each_teacher_has_its_own():
    teacher = dict(teacher=retinanet(width=24), teacher_ckpt='random')
    distill = dict(
        teachers=dict(one=dict(teacher, teacher_options=dict(dtype='bfloat16')), two=teacher),
        methods=dict(a=dict(type='FGD', teacher='one'), b=dict(type='FGD', teacher='two')),
    )
    teachers = expand_config(run_config('unused', distill=distill)).model.teachers
    assert teachers.one.teacher_options == dict(dtype='bfloat16')
    assert 'teacher_options' not in teachers.two
