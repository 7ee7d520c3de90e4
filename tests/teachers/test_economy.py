"""A cheaper teacher gives the records of the plain one, or is refused."""

from __future__ import annotations

import copy
import functools
import logging

import pytest
import torch
from _helpers import tiny, tiny_seg
from _helpers.precision import allow_half
from _helpers.tiny import block, retinanet, run_config
from mmengine.registry import MODELS
from torch import nn

from mmkd_plugin.block import expand_config
from mmkd_plugin.distillers.schedule import Progress
from mmkd_plugin.errors import DistillError
from mmkd_plugin.teachers import compiled, economy, half_precision, savings
from mmkd_plugin.teachers.options import _cpu_computes
from mmkd_plugin.utilities.nested import tensors_of

OFF = dict(fuse_bn=False, channels_last=False)
COMPUTES_BFLOAT16 = _cpu_computes('bfloat16')


@pytest.fixture(autouse=True)
def any_cpu(monkeypatch):
    allow_half(monkeypatch)


def algorithm(options, kit=tiny, **changes):
    """A distilled model; its teacher's batch norms have statistics of their own."""
    cfg = kit.run_config('unused', distill=dict(block(), teacher_options=options, **changes))
    if kit is tiny_seg:
        cfg.distill.teacher = tiny_seg.pspnet(width=24)
    return initialised(cfg)


def initialised(cfg):
    torch.manual_seed(0)
    model = MODELS.build(expand_config(cfg).model).train()
    model.init_weights()
    for module in model.teacher.model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return model


def step(model, kit=tiny):
    """The losses of a step, and the teacher's records in it."""
    records = {}

    def observe(model, losses):
        for name in model.distiller.recorders_read(from_student=False):
            recorder = model.distiller.teacher_recorders.get_recorder(name)
            records[name] = list(tensors_of(recorder.get_record_data()))

    model.step_observers.append(observe)
    torch.manual_seed(1)
    losses = model(**kit.batch(model), mode='loss')
    model.step_observers.remove(observe)
    return losses, records


def names(model):
    return [verdict.name for verdict in model.teacher.economy.verdicts]


def assert_close(found, plain, tolerance):
    assert found.keys() == plain.keys() and found
    for name, items in plain.items():
        for item, other in zip(items, found[name]):
            assert item.dtype == other.dtype == torch.float32 and other.is_contiguous()
            assert float((item - other).norm() / item.norm()) <= tolerance


@pytest.fixture(scope='module')
def plain():
    return step(algorithm(OFF))


def test_what_is_on_by_default(plain):
    model = algorithm({})
    _, records = step(model)
    assert names(model) == ['fuse_bn', 'channels_last']
    assert model.teacher.economy.verdicts[0].note == '20 of 20 batch norms'
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.teacher.model.modules())
    assert_close(records, plain[1], 1e-5)
    told = model.teacher.sentences()[1]
    assert told.startswith('teacher options in force: fuse_bn (20 of 20 batch norms, difference ') and 'e-0' in told
    assert_close(step(model)[1], plain[1], 1e-5)


def test_nothing_where_all_is_off(plain):
    model = algorithm(OFF)
    assert step(model)[0].keys() == plain[0].keys()
    assert names(model) == [] and len(model.teacher.sentences()) == 1


def test_half_precision_is_for_the_records_alone(plain):
    model = algorithm(dict(OFF, dtype='bfloat16'))
    before = copy.deepcopy(model.teacher.model.state_dict())
    _, records = step(model)
    assert names(model) == ['dtype']
    assert_close(records, plain[1], 0.05)
    assert any(not torch.equal(item, plain[1][name][0]) for name, (item, *_) in records.items())
    after = model.teacher.model.state_dict()
    assert all(torch.equal(after[key], value) and after[key].dtype == value.dtype for key, value in before.items())
    # Whoever wants a prediction gets it from the model as it was loaded.
    assert len(model.teacher.model(**tiny.batch(model), mode='predict')) == 3
    assert model.teacher.economy.held() > 0


def test_a_step_repeats_itself():
    model = algorithm(dict(dtype='bfloat16'))
    first, second = (step(model)[1] for _ in range(2))
    assert all(torch.equal(*pair) for name in first for pair in zip(first[name], second[name]))


def test_all_heads_of_a_two_stage_detector():
    cfg = run_config(
        'unused',
        model=tiny.faster_rcnn(),
        distill=block(teacher=tiny.faster_rcnn(depth=34), methods=dict(chen=dict(type='Chen'))),
    )
    written = []
    for options in (OFF, dict(dtype='bfloat16')):
        cfg.distill.teacher_options = options
        model = initialised(cfg)
        written.append(step(model)[1])
    assert names(model) == ['fuse_bn', 'channels_last', 'dtype']
    assert_close(written[1], written[0], 0.05)


def test_segmentors_whose_heads_pass_their_hooks():
    methods = dict(kd=dict(type='PSPNetKD'), pair=dict(type='PairWise'))
    found = [step(algorithm(options, tiny_seg, methods=methods), tiny_seg)[1] for options in (OFF, dict(fuse_bn=True))]
    assert_close(found[1], found[0], 1e-5)


def test_channels_last_is_not_tried_where_it_is_slower():
    model = algorithm({}, tiny_seg, methods=dict(pixel=dict(type='PixelWise')))
    step(model, tiny_seg)
    assert names(model) == ['fuse_bn']


def test_the_option_at_fault_is_named():
    for options, fault in ((dict(fuse_bn=True), 'fuse_bn'), (dict(OFF, channels_last=True), 'channels_last')):
        model = algorithm(dict(options, tolerance=1e-12))
        with pytest.raises(DistillError) as caught:
            step(model)
        text = str(caught.value)
        assert text.startswith(f'"teacher_options.{fault}" changes what the teacher\'s recorder "teacher_neck')
        assert 'of its norm, where 1.0e-12 are allowed; leave it out, or raise teacher_options.tolerance.' in text


def test_a_default_at_fault_is_left_out(plain):
    model = algorithm(dict(tolerance=1e-12))
    _, records = step(model)
    assert names(model) == []
    assert 'fuse_bn left out, since it changes what' in model.teacher.sentences()[1]
    assert all(torch.equal(*pair) for name in plain[1] for pair in zip(plain[1][name], records[name]))


def test_an_option_that_fails_is_refused(monkeypatch):
    def break_(self, flow):
        raise RuntimeError('"op" not implemented for BFloat16\nmore')

    monkeypatch.setattr(half_precision.HalfPrecision, 'apply', break_)
    with pytest.raises(DistillError, match=r'dtype" fails here \("op" not implemented for BFloat16\); leave it out.'):
        step(algorithm(dict(dtype='bfloat16')))


def test_a_wrong_saving_is_found(monkeypatch):
    """Whatever goes wrong in the folding shows in the records."""
    monkeypatch.setattr(savings, 'fuse_conv_bn', lambda module: None)
    with pytest.raises(DistillError, match='"teacher_options.fuse_bn" changes'):
        step(algorithm(dict(fuse_bn=True)))


def test_records_that_come_later_are_compared_then(plain):
    later = dict(type='Feature', loss=dict(type='PKDLoss'), tap='backbone.layer1.0.conv1', schedule=dict(start=1))
    model = algorithm({}, methods=dict(fgd=dict(type='FGD'), late=later))
    model.distiller.progress = Progress(0, 0, 4, 1)
    step(model)
    assert model.teacher.economy.verdicts[0].note == '19 of 20 batch norms'
    model.distiller.progress = Progress(1, 0, 4, 1)
    seen = []
    model.teacher.model.backbone.register_forward_pre_hook(lambda *_: seen.append(1))
    _, records = step(model)
    assert len(seen) == 4 and names(model) == ['fuse_bn', 'channels_last']
    assert_close({key: records[key] for key in plain[1]}, plain[1], 1e-5)
    step(model)
    assert len(seen) == 5


def test_a_teacher_that_gives_no_numbers_runs_plainly():
    model = algorithm(dict(fuse_bn=True, dtype='bfloat16'))
    whole = model.teacher.model.backbone.conv1.weight.clone()
    model.teacher.model.backbone.conv1.weight.fill_(float('nan'))
    _, records = step(model)
    assert all(torch.isnan(items[0]).any() for items in records.values())
    assert names(model) == []
    model.teacher.model.backbone.conv1.weight.copy_(whole)
    step(model)
    assert names(model) == ['fuse_bn', 'channels_last', 'dtype']


def test_another_type_and_device(plain):
    model = algorithm(dict(device='cpu:0', dtype='bfloat16'))
    _, records = step(model)
    assert names(model) == ['device', 'fuse_bn', 'channels_last', 'dtype']
    assert_close(records, plain[1], 0.05)
    model.double()
    losses, records = step(model)
    assert model.teacher.model.backbone.conv1.weight.dtype == torch.float64
    assert all(torch.isfinite(item).all() for items in records.values() for item in items)


def test_compiled_parts_leave_records_and_the_early_end_alone(plain, monkeypatch):
    monkeypatch.setattr(compiled.torch, 'compile', functools.partial(torch.compile, backend='eager'))
    heads = []
    model = algorithm(dict(compile=True))
    model.teacher.model.bbox_head.register_forward_pre_hook(lambda *_: heads.append(1))
    _, records = step(model)
    assert names(model) == ['fuse_bn', 'channels_last', 'compile'] and not heads
    assert model.teacher.economy.verdicts[-1].note == '1 part'
    assert_close(records, plain[1], 1e-5)
    assert 'forward' not in vars(model.teacher.model.backbone)
    watched = algorithm(dict(compile=True))
    for module in watched.teacher.model.modules():
        module.register_forward_hook(lambda *_: None)
    with pytest.raises(DistillError, match=r'compile" fails here \(no part of the teacher is free of recorded modules'):
        step(watched)
    watched = algorithm(dict(compile=True))
    for module in watched.teacher.model.modules():
        module.register_forward_hook(lambda *_: None)
    watched.teacher.economy.without_compiling()
    step(watched)
    assert 'compile' not in names(watched)


@pytest.mark.parametrize('half', [{}, dict(dtype='bfloat16')])
def test_prepacked_weights(plain, half):
    if half and not COMPUTES_BFLOAT16:
        with pytest.raises(DistillError, match='"teacher_options.prepack" fails here .*; leave it out.'):
            step(algorithm(dict(half, prepack=True)))
        return
    # 20 of the backbone and 3 of the neck, of which 3 more are recorded.
    model = algorithm(dict(half, prepack=True))
    _, records = step(model)
    assert names(model)[-1] == 'prepack' and model.teacher.economy.verdicts[-1].note == '23 convolutions'
    assert_close(records, plain[1], 0.05 if half else 1e-5)
    assert model.teacher.economy.held() > 0
    assert not any('forward' in vars(item) for item in model.teacher.model.modules())
    # Images of another size, for which the layout was not made.
    found = []
    for other in (model, algorithm(dict(half, fuse_bn=True))):
        data = tiny.batch(other)
        data['inputs'] = nn.functional.interpolate(data['inputs'], scale_factor=1.5)
        needed = other.distiller.teacher_records_needed()
        other.teacher.run(data['inputs'], data['data_samples'], needed)
        recorders = other.distiller.teacher_recorders.recorders
        found.append({name: list(tensors_of(recorders[name].get_record_data())) for name in needed})
    assert_close(found[0], found[1], 0.05 if half else 1e-5)
    with torch.autocast('cpu', torch.bfloat16):
        step(model)
    model.double()
    assert all(item.dtype == torch.float64 for items in step(model)[1].values() for item in items)


def test_mixed_precision_of_the_student_does_not_blur_the_comparison():
    model = algorithm({})
    with torch.autocast('cpu', torch.bfloat16):
        step(model)
    assert names(model) == ['fuse_bn', 'channels_last']
    assert all(verdict.difference < 1e-5 for verdict in model.teacher.economy.verdicts)


def test_random_numbers_of_the_student_stay():
    draws = []
    for options in (OFF, {}):
        step(algorithm(options))
        draws.append(torch.rand(3))
    assert torch.equal(*draws)


def test_copies_have_no_teacher_to_mark():
    model = copy.deepcopy(algorithm({}))
    with pytest.raises(DistillError, match='has no teacher'):
        step(model)


def test_differences():
    one = dict(a=[torch.ones(4)], b=[torch.zeros(2), torch.tensor([1, 2])])
    assert economy.largest_difference(one, one).value == 0
    other = dict(a=[torch.ones(4) * 1.5], b=one['b'])
    found = economy.largest_difference(one, other)
    assert found.value == pytest.approx(0.5) and found.recorder == 'a'
    for broken in ([torch.zeros(2)], [torch.zeros(2), torch.tensor([1, 3])], [torch.ones(2), one['b'][1]]):
        found = economy.largest_difference(one, dict(one, b=broken))
        assert found.value == float('inf') and found.recorder == 'b'
    nan = dict(one, a=[torch.full((4,), float('nan'))])
    assert economy.largest_difference(one, nan).value == float('inf')


def test_what_is_left_out_is_logged(caplog):
    from mmengine.logging import MMLogger

    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    with caplog.at_level(logging.INFO, logger.name):
        step(algorithm(dict(tolerance=1e-12)))
    logger.removeHandler(caplog.handler)
    assert any('teacher_options: fuse_bn left out, since it changes' in item.message for item in caplog.records)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
@pytest.mark.parametrize('options', [dict(stream=True), dict(dtype='float16'), dict(stream=True, dtype='float16')])
def test_on_a_gpu(options):
    plain, cheaper = (step(algorithm(item).cuda())[1] for item in (OFF, options))
    assert_close(cheaper, plain, 0.01)


def test_several_teachers():
    teacher = dict(teacher=retinanet(width=24), teacher_ckpt='random')
    distill = dict(
        teachers=dict(
            one=dict(teacher, teacher_options=dict(dtype='bfloat16')), two=dict(teacher, teacher_options=OFF)
        ),
        methods=dict(a=dict(type='FGD', teacher='one'), b=dict(type='FGD', teacher='two')),
    )
    model = initialised(run_config('unused', distill=distill))
    step(model)
    assert [len(item.economy.verdicts) for item in model.teachers.values()] == [3, 0]
    distill['teachers']['one']['teacher_options'] = dict(fuse_bn=True, tolerance=1e-12)
    with pytest.raises(DistillError, match='"teachers.one.teacher_options.fuse_bn" changes'):
        step(initialised(run_config('unused', distill=distill)))
