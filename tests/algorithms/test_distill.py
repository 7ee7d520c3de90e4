"""The algorithm looks like the student from outside and keeps the teacher out of everything."""

from __future__ import annotations

import copy

import pytest
import torch
from _helpers.tiny import TinyBoxes, batch, block, build, retinanet, run_config
from mmengine.registry import MODELS
from torch import nn

from mmkd_plugin.algorithms import DistillAlgorithm
from mmkd_plugin.block import expand_config
from mmkd_plugin.errors import DistillError
from mmkd_plugin.utilities.rng import isolated_rng


def algorithm(**changes) -> DistillAlgorithm:
    cfg = expand_config(run_config('unused', distill=block(**changes)))
    return MODELS.build(cfg.model)


@pytest.fixture(scope='module')
def model() -> DistillAlgorithm:
    return algorithm()


def test_state_is_the_plain_students(model):
    student = MODELS.build(retinanet())
    assert list(model.state_dict()) == list(student.state_dict())
    student.load_state_dict(model.state_dict(), strict=True)


def test_loading_a_plain_student(model):
    from mmengine.runner.checkpoint import load_state_dict

    state = {key: torch.ones_like(value) for key, value in MODELS.build(retinanet()).state_dict().items()}
    target = copy.deepcopy(model)
    load_state_dict(target, state, strict=True)
    assert all((value == 1).all() for value in target.state_dict().values())
    target.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(
        target.state_dict()['bbox_head.retina_cls.weight'], model.architecture.bbox_head.retina_cls.weight
    )


def test_teacher_is_outside_the_module_tree(model):
    inside = {id(parameter) for parameter in model.parameters()} | {id(module) for module in model.modules()}
    teacher = model.teacher.model
    assert not inside & ({id(item) for item in teacher.parameters()} | {id(item) for item in teacher.modules()})
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


def test_teacher_stays_in_evaluation_mode(model):
    assert model.train() is model
    assert not any(module.training for module in model.teacher.model.modules())
    assert model.eval() is model


def test_teacher_follows_to():
    moved = algorithm().to(torch.float64)
    assert moved.teacher.model.backbone.conv1.weight.dtype == torch.float64


def test_copies_have_no_teacher_and_leave_it_where_it_is(model):
    duplicate = copy.deepcopy(model).to(torch.float64)
    assert model.teacher.model.backbone.conv1.weight.dtype == torch.float32
    with pytest.raises(DistillError, match='copy of a distillation algorithm'):
        duplicate.to(torch.float32)(**batch(duplicate), mode='loss')


def test_keys_of_the_module_tree_are_accepted(model):
    """MMDetection's SyncNormHook writes states back under the names of ``named_modules()``."""
    target = algorithm()
    target.load_state_dict({'architecture.backbone.bn1.running_mean': torch.full((8,), 3.0)}, strict=False)
    assert target.backbone.bn1.running_mean.tolist() == [3.0] * 8


def test_teacher_without_a_preprocessor_sees_the_students_images():
    teacher = retinanet(width=24)
    del teacher['data_preprocessor']
    model = algorithm(teacher=teacher)
    seen = []
    model.teacher.model.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    data = batch(model.train())
    model(**data, mode='loss')
    assert torch.equal(seen[0], data['inputs'])


def test_teacher_stops_behind_the_last_record(model):
    calls = []
    teacher = model.teacher.model
    handles = [
        teacher.bbox_head.register_forward_hook(lambda *_: calls.append('head')),
        teacher.neck.fpn_convs[1].register_forward_hook(lambda *_: calls.append('level')),
    ]
    model.train()
    model(**batch(model), mode='loss')
    for handle in handles:
        handle.remove()
    # More than once in the first step, which compares the teacher's options.
    assert set(calls) == {'level'}


def test_losses_keep_the_students_names(model):
    losses = model(**batch(model), mode='loss')
    assert {'loss_cls', 'loss_bbox'} < set(losses)
    assert {name for name in losses if name.startswith('distill.')} == {
        f'distill.loss_fgd_{term}' for term in ('foreground', 'background', 'attention', 'relation')
    }


def test_records_are_released(model):
    model(**batch(model), mode='loss')
    for manager in (model.distiller.student_recorders, model.distiller.teacher_recorders):
        assert all(not recorder.data_buffer for recorder in manager.recorders.values())


def test_gradients_reach_student_and_connectors_alone():
    target = algorithm()
    losses = target(**batch(target), mode='loss')
    sum(value for name, value in losses.items() if name.startswith('distill.')).backward()
    assert target.architecture.backbone.conv1.weight.grad.abs().sum() > 0
    assert target.distiller.connectors['loss_fgd_level0'].conv.weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in target.teacher.model.parameters())
    assert target.architecture.bbox_head.retina_cls.weight.grad is None


def test_unknown_attributes_are_the_students(model):
    assert model.bbox_head is model.architecture.bbox_head
    with pytest.raises(AttributeError):
        _ = model.no_such_attribute


def test_dropout_of_the_teacher_is_off():
    teacher = retinanet(width=24)
    model = algorithm(teacher=teacher)
    inner = model.teacher.model
    inner.neck = nn.Sequential(inner.neck)
    dropout = nn.Dropout(0.5)
    inner.backbone.maxpool = nn.Sequential(inner.backbone.maxpool, dropout.train(inner.training))
    data = batch(model)
    outputs = []
    for _ in range(2):
        with torch.no_grad():
            outputs.append(inner.extract_feat(data['inputs'])[0])
    assert torch.equal(*outputs)


def test_teacher_with_another_normalisation_sees_its_own_input():
    teacher = retinanet(width=24, mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0], bgr_to_rgb=False)
    model = algorithm(teacher=teacher)
    seen = []
    model.teacher.model.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model.train()
    model(**batch(model), mode='loss')
    items = [TinyBoxes()[index] for index in (0, 1, 2)]
    own = model.teacher.model.data_preprocessor(
        dict(inputs=[item['inputs'] for item in items], data_samples=[item['data_samples'] for item in items])
    )
    torch.testing.assert_close(seen[0], own['inputs'], atol=1e-4, rtol=1e-5)


def test_batches_without_boxes_are_finite(model):
    losses = model(**batch(model, (0,)), mode='loss')
    assert all(torch.isfinite(value).all() for name, value in losses.items() if name.startswith('distill.'))
    assert losses['distill.loss_fgd_foreground'] == 0


def test_terms_are_single_precision_under_autocast(model):
    data = batch(model)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        losses = model(**data, mode='loss')
    terms = [value for name, value in losses.items() if name.startswith('distill.')]
    assert all(value.dtype == torch.float32 and torch.isfinite(value) for value in terms)


def test_padding_does_not_change_the_masks(model):
    """A sample's ground truth is scaled by its own image, whatever it is batched with."""
    with model.distiller.student_recorders:
        model.architecture(*batch(model, (2, 3)).values(), mode='loss')
        shapes = model.distiller.student_recorders.get_recorder('batch').get_record_data(data_idx='image_shapes')
    model.distiller.release_records()
    assert shapes.tolist() == [[48, 56], [64, 64]]


def test_isolated_rng_leaves_the_stream_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with isolated_rng():
        first = torch.rand(3)
    assert torch.equal(torch.rand(3), expected)
    assert not torch.equal(first, expected)
    torch.manual_seed(5)
    with isolated_rng():
        assert torch.equal(torch.rand(3), first)


def test_runner_builds_the_algorithm_only_to_train(tmp_path):
    runner = build(run_config(tmp_path, distill=block()))
    assert type(runner.model).__name__ == 'RetinaNet'
    runner.train()
    assert isinstance(runner.model, DistillAlgorithm)


def test_former_arguments_are_refused_with_what_to_write():
    with pytest.raises(DistillError, match=r'has no "teacher"; write teachers=dict\(teacher=dict\(teacher='):
        DistillAlgorithm(retinanet(), teacher=retinanet(), teacher_ckpt='x', distiller={})
    with pytest.raises(DistillError, match='needs teachers='):
        DistillAlgorithm(retinanet(), distiller={})
