"""A checkpoint that is tested fills the model, or is refused with the counts and some keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from _helpers.tiny import block, build, retinanet, run_config
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner

from mmkd_plugin.engine.coverage import Coverage
from mmkd_plugin.errors import DistillError


def state_dict(**changes: Any) -> dict[str, torch.Tensor]:
    """Weights of a small detector."""
    init_default_scope('mmdet')
    return dict(MODELS.build(retinanet(**changes)).state_dict())


def config_for(folder: Path, content: Any, **changes: Any) -> Config:
    """A config that tests a small detector with a checkpoint."""
    torch.save(content, folder / 'model.pth')
    return run_config(
        folder,
        load_from=str(folder / 'model.pth'),
        test_dataloader=dict(
            batch_size=2,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=False),
            dataset=dict(type='TinyBoxes', length=2),
        ),
        test_cfg=dict(type='TestLoop'),
        test_evaluator=dict(type='DumpDetResults', out_file_path=str(folder / 'out.pkl')),
        **changes,
    )


def run_test(cfg: Config) -> Runner:
    runner = build(cfg)
    runner.test()
    return runner


def refusal(cfg: Config) -> str:
    with pytest.raises(DistillError) as caught:
        run_test(cfg)
    return str(caught.value)


@pytest.mark.parametrize('distill', [None, block()], ids=['stock', 'distilled'])
def test_checkpoint_of_another_depth_is_refused(tmp_path: Path, distill: dict | None) -> None:
    said = refusal(config_for(tmp_path, dict(state_dict=state_dict(width=24)), distill=distill))
    assert 'model.pth" is one of another model: it fills ' in said
    # The neck and the head that reads it differ; the backbone is the same.
    assert 'weights of RetinaNet ("neck.lateral_convs.0.conv.weight" has the shape (24, 16, 1, 1) in the file' in said
    assert said.endswith('trained with this config, or the config that it was trained with.')
    own = [key for key in state_dict() if not key.endswith('num_batches_tracked')]
    differing = [key for key, value in state_dict(width=24).items() if value.shape != state_dict()[key].shape]
    assert f'fills {len(own) - len(differing)} of {len(own)} ' in said


def test_checkpoint_that_lacks_one_weight_is_refused(tmp_path: Path) -> None:
    state = state_dict()
    del state['bbox_head.retina_cls.bias']
    assert '(it lacks "bbox_head.retina_cls.bias")' in refusal(config_for(tmp_path, dict(state_dict=state)))


def test_checkpoint_without_the_statistics_of_a_norm_layer_is_refused(tmp_path: Path) -> None:
    state = state_dict()
    del state['backbone.bn1.running_var']
    assert '(it lacks "backbone.bn1.running_var")' in refusal(config_for(tmp_path, dict(state_dict=state)))


def test_nothing_fits(tmp_path: Path) -> None:
    said = refusal(config_for(tmp_path, dict(state_dict={'a.weight': torch.zeros(1), 'b': torch.zeros(1)})))
    assert 'fills 0 of ' in said
    assert 'the model has no "a.weight", "b"' in said


@pytest.mark.parametrize(
    ('content', 'found'),
    [([1, 2], 'a list'), (torch.zeros(2), 'a Tensor'), (dict(model=dict(w=1)), "a dict of 'model'")],
    ids=['list', 'tensor', 'other'],
)
def test_file_without_weights_is_refused(tmp_path: Path, content: Any, found: str) -> None:
    said = refusal(config_for(tmp_path, content))
    assert f'model.pth" holds no weights of a model but {found}; give a checkpoint' in said


@pytest.mark.parametrize(
    'form',
    [
        lambda state: dict(state_dict=state),
        lambda state: state,
        lambda state: dict(state_dict={f'module.{key}': value for key, value in state.items()}),
        lambda state: dict(state_dict=state, ema_state_dict={f'module.{k}': v for k, v in state.items()}),
        lambda state: dict(state_dict=state, distill_state={'connector': torch.zeros(1)}),
        lambda state: dict(state_dict={**state, 'more': torch.zeros(1)}),
        lambda state: dict(state_dict={k: v for k, v in state.items() if not k.endswith('num_batches_tracked')}),
        lambda state: dict(state_dict={k: v.half() if v.is_floating_point() else v for k, v in state.items()}),
    ],
    ids=['usual', 'bare', 'module', 'averaged', 'distilled', 'one more', 'no counters', 'half'],
)
def test_what_mmengine_loads_is_tested(tmp_path: Path, form: Any) -> None:
    state = state_dict()
    runner = run_test(config_for(tmp_path, form(state)))
    loaded = runner.model.state_dict()['bbox_head.retina_cls.weight']
    assert torch.allclose(loaded, state['bbox_head.retina_cls.weight'], atol=1e-3)
    assert (tmp_path / 'out.pkl').exists()


def test_average_of_a_run_is_tested(tmp_path: Path) -> None:
    state = state_dict()
    hooks = [dict(type='EMAHook')]
    assert run_test(config_for(tmp_path, dict(state_dict=state), custom_hooks=hooks)).test_loop is not None


def test_training_starts_from_whatever_fits(tmp_path: Path) -> None:
    state = {key: value for key, value in state_dict().items() if key.startswith('backbone.')}
    torch.save(dict(state_dict=state), tmp_path / 'backbone.pth')
    runner = build(run_config(tmp_path, iterations=1, distill=block(), load_from=str(tmp_path / 'backbone.pth')))
    runner.train()
    assert runner.iter == 1


def test_testing_without_a_checkpoint_stays_as_it_is(tmp_path: Path) -> None:
    cfg = config_for(tmp_path, {})
    cfg.load_from = None
    run_test(cfg)


def test_keys_that_a_module_renames_count(tmp_path: Path) -> None:
    """As MMDetection's heads do with the keys of older versions."""

    class Renamed(torch.nn.Linear):
        def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
            for name in ('weight', 'bias'):
                if f'{prefix}old_{name}' in state_dict:
                    state_dict[f'{prefix}{name}'] = state_dict.pop(f'{prefix}old_{name}')
            super()._load_from_state_dict(state_dict, prefix, *args)

    model = Renamed(2, 2)
    coverage = Coverage(model)
    assert coverage.missing() == ['weight', 'bias']
    model.load_state_dict({'old_weight': torch.zeros(2, 2), 'old_bias': torch.zeros(2)})
    assert coverage.missing() == []
