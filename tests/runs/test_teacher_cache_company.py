"""Kept records beside other things: several processes, images without labels, larger images for the teacher."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from _helpers.ranks import train_on_two_ranks
from _helpers.tiny import build, losses_of, retinanet
from _helpers.tiny_images import entries, kept_config, pipeline, write_images
from mmengine.config import Config

pytest.importorskip('safetensors')

from mmkd_plugin.datasets.coco_mini import MiniSettings, ensure_coco_mini
from mmkd_plugin.engine.state_hook import algorithm_of
from mmkd_plugin.study.teacher_cache import fill_cache

CONFIGS = Path(__file__).parents[2] / 'configs'


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking for the versions of all compilers takes longer than such a run."""
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)


def misses(runner: Any) -> int:
    algorithm = algorithm_of(runner)
    assert algorithm is not None
    return algorithm.teacher.misses  # type: ignore[union-attr]


def trained(cfg: Config) -> Any:
    runner = build(cfg)
    runner.train()
    return runner


def require_equal(kept: Any, plain: Any) -> None:
    names = [name[6:] for name in plain.message_hub.log_scalars if 'distill.' in name]
    assert names
    for name in names:
        assert losses_of(kept, name) == pytest.approx(losses_of(plain, name), rel=5e-3, abs=1e-5)


def test_two_processes_fill_one_store_and_read_it(tmp_path: Path) -> None:
    data = write_images(tmp_path / 'data', count=12)
    kept_config(data, tmp_path / 'unused')
    (tmp_path / 'cold').mkdir()
    (tmp_path / 'warm').mkdir()
    cold = train_on_two_ranks(tmp_path / 'cold', 'kept', str(data))
    before = entries(data)
    assert len(before) > 6 and not list((data / 'cache').rglob('*.unfinished'))
    warm = train_on_two_ranks(tmp_path / 'warm', 'kept', str(data))
    assert entries(data) == before
    for rank in range(2):
        for key, value in cold[rank].items():
            assert torch.equal(value, warm[rank][key]), key


def segmentor(data: Path, work_dir: Path, **changes: Any) -> Config:
    cfg = Config.fromfile(CONFIGS / 'coco_mini' / 'pixel_pair_pspnet_r34_to_r18.py')
    steps = [step for step in cfg.train_dataloader.dataset.pipeline if step['type'] != 'RandomCrop']
    steps[2] = dict(type='Resize', scale=(64, 64))
    cfg.train_dataloader.dataset.pipeline = steps
    cfg.model.data_preprocessor.size = (64, 64)
    cfg.merge_from_dict(
        dict(
            train_dataloader=dict(batch_size=2, dataset=dict(data_root=str(data))),
            train_cfg=dict(max_iters=3, val_interval=10**6),
            default_hooks=dict(logger=dict(interval=1)),
            log_processor=dict(window_size=1),
            val_cfg=None,
            val_dataloader=None,
            val_evaluator=None,
            work_dir=str(work_dir),
        )
    )
    cfg.distill.teacher_ckpt = str(CONFIGS / 'coco_mini' / 'pspnet_r34.pth')
    cfg.distill.teacher_cache = dict(dir=str(data / 'cache'))
    cfg.distill.unlabelled = dict(images=str(data / 'extra'), batch_size=1)
    cfg.distill.update(changes)
    return cfg


def test_logits_of_images_with_and_without_labels(tmp_path: Path) -> None:
    data = tmp_path / 'data'
    ensure_coco_mini(data, MiniSettings(seed=3, train=9, val=2, size=64), report=lambda line: None)
    (data / 'extra').mkdir()
    for path in sorted((data / 'train').glob('*.png'))[6:]:
        (data / 'semantic' / 'train' / path.name).unlink()
        shutil.move(str(path), str(data / 'extra' / path.name))
    plain = trained(segmentor(data, tmp_path / 'plain', teacher_cache=False))
    cold = trained(segmentor(data, tmp_path / 'cold'))
    assert 0 < misses(cold) <= 9
    require_equal(cold, plain)
    [kept] = fill_cache(segmentor(data, tmp_path / 'fill'))
    assert kept.records == 2 * (6 + 3) and kept.computed == kept.records - misses(cold)
    assert misses(trained(segmentor(data, tmp_path / 'warm'))) == 0


def test_a_teacher_of_larger_images(tmp_path: Path) -> None:
    data = write_images(tmp_path / 'data')

    def cfg_of(name: str, **changes: Any) -> Config:
        cfg = kept_config(data, tmp_path / name, teacher_scale=2.0, **changes)
        cfg.model = retinanet(batch_augments=[dict(type='mmkd_plugin.ShrinkBatch', scale=2.0)])
        cfg.train_dataloader.dataset.pipeline = pipeline(resize=dict(type='Resize', scale=(128, 128)))
        return cfg

    plain = trained(cfg_of('plain', teacher_cache=False))
    assert fill_cache(cfg_of('fill'))[0].computed == 12
    warm = trained(cfg_of('warm'))
    assert misses(warm) == 0
    require_equal(warm, plain)
