"""A teacher is anything the user has, and its weights are complete or refused."""

from __future__ import annotations

import pytest
import torch
from _helpers.tiny import retinanet
from mmengine.config import Config
from mmengine.registry import MODELS

from mmkd_plugin.errors import DistillError
from mmkd_plugin.teachers import build_teacher, model_config


def saved(path, width=24, **changes):
    model = MODELS.build(retinanet(width=width))
    state = model.state_dict()
    state.update(changes)
    torch.save(dict(state_dict={key: value for key, value in state.items() if value is not None}, meta={}), path)
    return model


def test_zoo_name():
    config = model_config('mmdet::retinanet/retinanet_r101_fpn_2x_coco.py')
    assert config.type == 'RetinaNet' and config.backbone.depth == 101 and config['_scope_'] == 'mmdet'


def test_plain_path_gets_the_configs_scope(tmp_path):
    Config(dict(default_scope='mmdet', model=dict(type='RetinaNet'))).dump(tmp_path / 'teacher.py')
    assert model_config(str(tmp_path / 'teacher.py'))['_scope_'] == 'mmdet'


def test_config_dict_with_and_without_model():
    assert model_config(dict(model=retinanet())).type == 'RetinaNet'
    assert model_config(retinanet()).type == 'RetinaNet'


@pytest.mark.parametrize(
    ('source', 'message'),
    [
        ('no/such/file.py', 'The teacher config "no/such/file.py" does not exist'),
        (
            'mmdet::retinanet/retinanet_r101_fpn_2xcoco.py',
            'did you mean "mmdet::retinanet/retinanet_r101_fpn_2x_coco.py"',
        ),
        ('nopackage::a/b.py', 'names a package that is not installed'),
        ('mmpretrain::resnet/resnet50_8xb32_in1k.py', 'names a package that is not installed'),
    ],
)
def test_missing_config_is_named(source, message, monkeypatch):
    """Nothing is ever installed, which MMEngine's own look-up would do."""
    monkeypatch.setattr('mmengine.utils.package_utils.call_command', lambda command: pytest.fail(str(command)))
    with pytest.raises(DistillError, match=message):
        model_config(source)


def test_broken_config_is_one_sentence(tmp_path):
    (tmp_path / 'broken.py').write_text('model = dict(\n')
    with pytest.raises(DistillError, match='cannot be read .*SyntaxError'):
        model_config(str(tmp_path / 'broken.py'))


def test_unknown_type_is_one_sentence():
    with pytest.raises(DistillError, match='The teacher of type "NoSuchNet" cannot be built') as caught:
        build_teacher(dict(type='NoSuchNet'), 'random')
    assert '\n' not in str(caught.value)


def test_keys_of_former_versions_are_translated(tmp_path):
    """FCOS renames its predictors when it loads a file that an older version wrote."""
    config = model_config('mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py')
    state = build_teacher(config, 'random').model.state_dict()
    old = {key.replace('bbox_head.conv_cls', 'bbox_head.fcos_cls'): value for key, value in state.items()}
    assert old.keys() != state.keys()
    torch.save(dict(state_dict=old), tmp_path / 'old.pth')
    loaded = build_teacher(config, str(tmp_path / 'old.pth')).model.state_dict()
    assert torch.equal(loaded['bbox_head.conv_cls.weight'], state['bbox_head.conv_cls.weight'])


def test_config_without_a_model():
    with pytest.raises(DistillError, match='holds no "model"'):
        model_config(dict(optimizer=dict()))


def test_all_weights_are_loaded(tmp_path):
    model = saved(tmp_path / 'teacher.pth')
    loaded = build_teacher(retinanet(width=24), str(tmp_path / 'teacher.pth'))
    assert torch.equal(loaded.model.bbox_head.retina_cls.weight, model.bbox_head.retina_cls.weight)
    assert 'entries loaded' in loaded.report


def test_prefix_of_a_wrapper_is_dropped(tmp_path):
    state = MODELS.build(retinanet(width=24)).state_dict()
    torch.save(dict(state_dict={f'module.{key}': value for key, value in state.items()}), tmp_path / 'teacher.pth')
    build_teacher(retinanet(width=24), str(tmp_path / 'teacher.pth'))


def test_partial_checkpoint_is_refused(tmp_path):
    saved(tmp_path / 'teacher.pth', **{'bbox_head.retina_cls.weight': None})
    with pytest.raises(DistillError, match='"bbox_head.retina_cls.weight" is missing'):
        build_teacher(retinanet(width=24), str(tmp_path / 'teacher.pth'))


def test_checkpoint_of_another_width_is_refused(tmp_path):
    saved(tmp_path / 'teacher.pth', width=16)
    with pytest.raises(DistillError, match='has the shape'):
        build_teacher(retinanet(width=24), str(tmp_path / 'teacher.pth'))


def test_pretrained_backbone_is_not_fetched():
    config = retinanet(width=24)
    config['backbone']['init_cfg'] = dict(type='Pretrained', checkpoint='https://nowhere.invalid/resnet.pth')
    build_teacher(config, 'random')
