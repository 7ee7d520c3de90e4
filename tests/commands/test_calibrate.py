"""``mmkd calibrate``: what it measures, the block that it prints, and what it leaves alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from _helpers.tiny import block, build, losses_of, run_config
from mmengine.config import Config

from mmkd_plugin.__main__ import main
from mmkd_plugin.errors import DistillError
from mmkd_plugin.study.calibrate import Calibration, calibrate

PKD = dict(type='Feature', loss=dict(type='PKDLoss'))


def config(tmp_path: Path, methods: dict, **changes) -> Config:
    return run_config(tmp_path, distill=block(methods=methods), **changes)


def measured(tmp_path: Path, methods: dict, share: float | None = None, **changes) -> Calibration:
    return calibrate(config(tmp_path, methods, **changes), batches=3, after=1, share=share)


def pasted(cfg: Config, found: Calibration) -> Config:
    """The config with the printed block merged into it."""
    text = Config.fromstring(found.block(), '.py')
    cfg.merge_from_dict(dict(distill=text.distill))
    return cfg


def test_printed_block_gives_the_share(tmp_path):
    """With the weights that it prints, the same batches have the gradients that were asked for."""
    methods = dict(fgd=dict(type='FGD'), pkd=PKD)
    # Nothing is learned, so that the weights change nothing but the terms.
    still = dict(optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.0)))
    before = measured(tmp_path, methods, share=0.8, **still)
    again = calibrate(pasted(config(tmp_path, methods, **still), before), batches=3, after=1, share=0.8)
    assert set(before.methods) == {'fgd', 'pkd'}
    for name in before.methods:
        assert before.methods[name].measured.gradient != pytest.approx(0.4, rel=0.01)
        assert again.methods[name].measured.gradient == pytest.approx(0.4, rel=0.01)
        assert again.methods[name].wanted == pytest.approx(again.methods[name].weight, rel=0.01)


def test_terms_have_the_values_of_the_run(tmp_path):
    found = measured(tmp_path, dict(fgd=dict(type='FGD')))
    runner = build(config(tmp_path / 'run', dict(fgd=dict(type='FGD'))))
    runner.train()
    name = 'loss_fgd_attention'
    task = [sum(step) for step in zip(*(losses_of(runner, key)[1:4] for key in ('loss_cls', 'loss_bbox')))]
    terms = losses_of(runner, f'distill.{name}')[1:4]
    assert found.terms[name].value == pytest.approx(sum(term / own for term, own in zip(terms, task)) / 3)
    assert found.batches == 3
    assert set(found.terms) == {f'loss_fgd_{term}' for term in ('foreground', 'background', 'attention', 'relation')}


def test_weight_that_finds_itself_is_read(tmp_path):
    found = measured(tmp_path, dict(fgd=dict(type='FGD', loss_weight='auto', share=0.5))).methods['fgd']
    assert found.share == 0.5
    assert found.weight != 1
    assert found.measured.gradient == pytest.approx(0.5, rel=0.9)


def test_weight_in_the_loss_is_printed_where_it_stands(tmp_path):
    found = measured(tmp_path, dict(pkd=dict(PKD, loss=dict(type='PKDLoss', loss_weight=6))))
    assert 'pkd=dict(loss=dict(loss_weight=' in found.block()
    assert found.methods['pkd'].weight == 6


def test_weight_of_a_teacher_stays_on_top(tmp_path):
    teachers = dict(one=dict(block(), loss_weight=0.5))
    teachers['one'].pop('methods')
    cfg = run_config(tmp_path, distill=dict(teachers=teachers, methods=dict(fgd=dict(type='FGD', loss_weight=3))))
    found = calibrate(cfg, batches=1, after=0)
    assert found.methods['fgd'].weight == pytest.approx(3)


def test_config_and_folder_are_left_alone(tmp_path):
    cfg = config(tmp_path / 'run', dict(fgd=dict(type='FGD')))
    before = cfg.pretty_text
    calibrate(cfg, batches=1, after=0)
    assert cfg.pretty_text == before
    assert not (tmp_path / 'run').exists()


def test_command_prints_tables_and_the_block(tmp_path, capsys):
    path = tmp_path / 'config.py'
    config(tmp_path / 'run', dict(fgd=dict(type='FGD'))).dump(path)
    line = "custom_imports = dict(imports=['_helpers.tiny'])\n"
    path.write_text(line + path.read_text())
    assert main(['calibrate', str(path), '--batches', '2', '--after', '0', '--share', '0.3']) == 0
    shown = capsys.readouterr().out
    assert '2 batches behind 0 iterations' in shown
    assert 'loss_fgd_attention' in shown
    assert shown.rstrip().endswith('),\n)')
    assert 'fgd=dict(loss_weight=' in shown


@pytest.mark.parametrize(
    ('changes', 'options', 'message'),
    [
        (dict(distill=None), {}, 'has no distill block, so there is nothing to calibrate'),
        (dict(distill=block(methods=dict(fgd=dict(type='FGD', loss_weight=0)))), {}, 'has weight 0'),
        ({}, dict(batches=0), 'leaves nothing to measure'),
        ({}, dict(after=-1), 'leaves nothing to measure'),
        ({}, dict(after=40), 'The run ended after 4 iterations, before anything with a weight was measured'),
    ],
)
def test_mistakes_are_one_sentence(tmp_path, changes, options, message):
    cfg = run_config(tmp_path, **{'distill': block(), **changes})
    with pytest.raises(DistillError, match=message) as caught:
        calibrate(cfg, **options)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('share', ['0', '-1', 'nan'])
def test_share_that_is_none_is_refused(tmp_path, share, capsys):
    with pytest.raises(SystemExit) as ended:
        main(['calibrate', 'x.py', f'--share={share}'])
    assert ended.value.code == 2
    assert 'is no ratio of two gradients' in capsys.readouterr().err
