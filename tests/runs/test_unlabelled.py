"""Runs with unlabelled images: COCO-mini's segmentors, some of whose images come without their labels."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import _helpers.breaking  # noqa: F401
import pytest
import torch
from _helpers.ranks import train_on_two_ranks
from _helpers.tiny import build, exact_resume, losses_of, state_of
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, MODELS

from mmkd_plugin.block import expand_config
from mmkd_plugin.compat.checkpoint import load_checkpoint_file
from mmkd_plugin.datasets.coco_mini import MiniSettings, ensure_coco_mini
from mmkd_plugin.engine.replay import replay
from mmkd_plugin.errors import DistillError
from mmkd_plugin.utilities.unlabelled import is_unlabelled

CONFIGS = Path(__file__).parents[2] / 'configs'


@HOOKS.register_module(force=True)
class Seen(Hook):
    """Writes down which images each step saw, those without labels with a leading minus."""

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        self.steps = getattr(self, 'steps', [])
        samples = data_batch['data_samples']
        self.steps.append([('-' if is_unlabelled(item) else '') + Path(item.img_path).stem[-3:] for item in samples])


@pytest.fixture(scope='module')
def data(tmp_path_factory) -> Path:
    """Eight labelled images, and five in a folder without label maps."""
    root = tmp_path_factory.mktemp('data') / 'coco_mini'
    ensure_coco_mini(root, MiniSettings(seed=3, train=13, val=2, size=64), report=lambda line: None)
    (root / 'extra' / 'inside').mkdir(parents=True)
    for path in sorted((root / 'train').glob('*.png'))[8:]:
        (root / 'semantic' / 'train' / path.name).unlink()
        shutil.move(str(path), str(root / 'extra' / 'inside' / path.name))
    return root


def run_config(data: Path, work_dir: Path, iterations: int = 3, **unlabelled: Any) -> Config:
    cfg = Config.fromfile(CONFIGS / 'coco_mini' / 'pixel_pair_pspnet_r34_to_r18.py')
    cfg.merge_from_dict(
        dict(
            train_dataloader=dict(batch_size=2, dataset=dict(data_root=str(data))),
            train_cfg=dict(max_iters=iterations, val_interval=10**6),
            default_hooks=dict(logger=dict(interval=1), checkpoint=dict(interval=2, max_keep_ckpts=-1)),
            log_processor=dict(window_size=1),
            val_cfg=None,
            val_dataloader=None,
            val_evaluator=None,
            randomness=dict(seed=0),
            work_dir=str(work_dir),
        )
    )
    cfg.custom_hooks = [dict(type='Seen')]
    cfg.distill.teacher_ckpt = 'random'
    cfg.distill.unlabelled = dict(images=str(data / 'extra'), **unlabelled)
    return cfg


def train(cfg: Config) -> Any:
    runner = build(cfg)
    runner.train()
    return runner


def seen(runner: Any) -> list[list[str]]:
    return next(hook.steps for hook in runner.hooks if isinstance(hook, Seen))


def by_epoch(cfg: Config, epochs: int) -> Config:
    cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=epochs, val_interval=10**6)
    cfg.train_dataloader.sampler = dict(type='DefaultSampler', shuffle=True)
    cfg.param_scheduler = []
    cfg.default_hooks.checkpoint.update(by_epoch=True, interval=1)
    cfg.log_processor.by_epoch = True
    return cfg


def test_every_batch_holds_both(data, tmp_path):
    runner = train(run_config(data, tmp_path, iterations=5, batch_size=3))
    steps = seen(runner)
    assert [[name.startswith('-') for name in step] for step in steps] == [[False] * 2 + [True] * 3] * 5
    # Five images in 15 places: each three times.
    found = sorted(name for step in steps for name in step[2:])
    assert found == sorted(3 * [f'-{number:03}' for number in range(9, 14)])
    assert all(torch.isfinite(torch.tensor(losses_of(runner, 'distill.loss_pixel'))))
    checkpoint = load_checkpoint_file(str(tmp_path / 'iter_4.pth'))
    MODELS.build(runner.cfg.model).load_state_dict(checkpoint['state_dict'], strict=True)
    text = next(tmp_path.glob('*/*.log')).read_text()
    assert 'Unlabelled images: 5, of which 3 join the 2 labelled ones of each batch.' in text


def test_labelled_images_come_as_without(data, tmp_path):
    mixed = seen(train(run_config(data, tmp_path / 'mixed')))
    cfg = run_config(data, tmp_path / 'plain')
    cfg.distill.unlabelled = None
    assert [step[:2] for step in mixed] == seen(train(cfg))


def test_printed_config_trains_to_the_same_numbers(data, tmp_path):
    cfg = run_config(data, tmp_path / 'block')
    from_block = train(cfg)
    expand_config(cfg).dump(tmp_path / 'printed.py')
    printed = Config.fromfile(tmp_path / 'printed.py')
    printed.work_dir = str(tmp_path / 'printed')
    again = train(printed)
    assert seen(from_block) == seen(again)
    assert losses_of(from_block, 'loss') == losses_of(again, 'loss')
    first, second = state_of(from_block), state_of(again)
    assert all(torch.equal(first[key], second[key]) for key in first)


@exact_resume
def test_resumed_steps_see_what_they_would_have_seen(data, tmp_path):
    whole = train(run_config(data, tmp_path / 'whole', iterations=6))
    train(run_config(data, tmp_path / 'part', iterations=4))
    cfg = run_config(data, tmp_path / 'part', iterations=6)
    cfg.resume = True
    assert seen(train(cfg)) == seen(whole)[4:]


def test_resumed_epochs_see_what_they_would_have_seen(data, tmp_path):
    whole = train(by_epoch(run_config(data, tmp_path / 'whole'), 3))
    # Eight labelled images in batches of two: an epoch is as long as without the others.
    assert len(seen(whole)) == 12
    train(by_epoch(run_config(data, tmp_path / 'part'), 2))
    cfg = by_epoch(run_config(data, tmp_path / 'part'), 3)
    cfg.resume = True
    assert seen(train(cfg)) == seen(whole)[8:]


def test_workers_and_another_pipeline(data, tmp_path):
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=(32, 32)),
        dict(type='Pad', size=(64, 64)),
        dict(type='PackSegInputs'),
    ]
    cfg = run_config(data, tmp_path, pipeline=pipeline)
    cfg.train_dataloader.num_workers = 1
    assert len(seen(train(cfg))) == 3


@pytest.mark.parametrize('off', [dict(pixel=dict(loss_weight=0), pair=None), None])
def test_off_is_off(data, tmp_path, off):
    """Where nothing distils, the images have no part either, and their folder is not looked for."""
    cfg = run_config(data, tmp_path)
    cfg.distill.unlabelled.images = str(tmp_path / 'nowhere')
    cfg.merge_from_dict(dict(distill=None if off is None else dict(methods=off)))
    assert all(len(step) == 2 and not any(name.startswith('-') for name in step) for step in seen(train(cfg)))


@pytest.mark.parametrize(
    ('images', 'message'), [('nowhere', 'nowhere" is not there; put it there'), ('empty', 'empty" holds none')]
)
def test_folder_without_images_is_one_sentence(data, tmp_path, images, message):
    (tmp_path / 'empty').mkdir()
    cfg = run_config(data, tmp_path / 'run')
    cfg.distill.unlabelled.images = str(tmp_path / images)
    with pytest.raises(DistillError, match=message) as caught:
        train(cfg)
    assert '\n' not in str(caught.value)


def test_detection_config_is_one_sentence(tmp_path):
    cfg = Config.fromfile(CONFIGS / 'coco_mini' / 'fgd_retina_r34_to_r18.py')
    cfg.distill.update(teacher_ckpt='random', unlabelled=dict(images=str(tmp_path)))
    with pytest.raises(DistillError, match='"distill.unlabelled" is for segmentors') as caught:
        expand_config(cfg)
    assert '\n' not in str(caught.value)


def test_kept_step_is_repeated_with_its_unlabelled_images(data, tmp_path):
    def breaking_at(step: int, name: str) -> Config:
        cfg = run_config(data, tmp_path / name)
        loss = dict(type='mmkd_plugin.BreakingLoss', fault='nan', step=step)
        cfg.distill.methods = dict(x=dict(type='Feature', loss=loss, tap='backbone.layer4'))
        cfg.default_hooks.checkpoint.interval = 1
        return cfg

    healthy = train(breaking_at(10**6, 'healthy'))
    with pytest.raises(DistillError, match='Iteration 2: "loss_x'):
        train(breaking_at(2, 'broken'))
    numbers = {label.name: value for label, value in replay(str(tmp_path / 'broken' / 'fault_iter_2')).numbers.items()}
    for name in ('decode.loss_ce', 'aux.loss_ce'):
        assert numbers[name] == pytest.approx(losses_of(healthy, name)[1], rel=1e-5)


def test_two_ranks_share_the_images(data, tmp_path):
    first, second = train_on_two_ranks(tmp_path, 'unlabelled', str(data))
    assert all(torch.equal(first[key], second[key]) for key in first)
    names = [(tmp_path / f'seen{rank}.txt').read_text().split() for rank in (0, 1)]
    unlabelled = [[name for name in each if name.startswith('-')] for each in names]
    # Five images; two processes with one in each of five steps see each of them twice.
    assert [len(each) for each in unlabelled] == [5, 5]
    assert sorted(unlabelled[0] + unlabelled[1]) == sorted(2 * [f'-{number:03}' for number in range(9, 14)])
