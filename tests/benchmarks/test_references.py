"""The check of the numbers catches what it must and forgives what it may."""

from __future__ import annotations

import copy
import io
import json

import pytest
import torch
from _helpers.tiny import block, run_config
from rich.console import Console

from benchmarks import references
from benchmarks.references import Tolerance, compare, run
from mmkd_plugin.errors import DistillError

pytestmark = pytest.mark.slow

NUMBERS = dict(pair=dict(first=dict(loss=2.0), later=dict(loss=1.0), metrics=dict(mAP=0.1)))


def changed(part, key, value):
    numbers = copy.deepcopy(NUMBERS)
    numbers['pair'][part][key] = value
    return [move.what for move in compare(NUMBERS, numbers, Tolerance()) if move.moved]


@pytest.mark.parametrize(
    ('part', 'key', 'value', 'moved'),
    [
        ('first', 'loss', 2.001, []),
        ('first', 'loss', 2.01, ['first loss']),
        ('later', 'loss', 1.03, []),
        ('later', 'loss', 0.85, ['later loss']),
        ('metrics', 'mAP', 0.104, []),
        ('metrics', 'mAP', 0.2, ['metrics mAP']),
        ('first', 'loss', float('nan'), ['first loss']),
        ('first', 'new_loss', 1.0, ['first new_loss']),
    ],
)
def test_tolerance(part, key, value, moved):
    assert changed(part, key, value) == moved


@pytest.mark.parametrize(('value', 'moved'), [(-5e-6, []), (2e-5, ['later loss'])])
def test_a_value_near_zero_may_move_by_a_share_of_the_floor(value, moved):
    numbers = [dict(pair=dict(later=dict(loss=loss))) for loss in (1e-6, value)]
    assert [move.what for move in compare(*numbers, Tolerance()) if move.moved] == moved


def test_a_missing_term_moves():
    assert [
        move.what
        for move in compare(NUMBERS, dict(pair=dict(first={}, later={}, metrics={})), Tolerance())
        if move.moved
    ]


@pytest.fixture(scope='module')
def check(tmp_path_factory):
    """A pair with references of its own, and a function that runs it with overrides."""
    folder = tmp_path_factory.mktemp('numbers')
    run_config(folder, distill=block()).dump(folder / 'pair.py')

    def call(update=False, iterations=3, pair='tiny', first_only=False, **options):
        out = io.StringIO()
        settings = {'custom_imports.imports': ['_helpers.tiny'], **options}
        same = run(
            {pair: str(folder / 'pair.py')},
            folder / 'references.json',
            iterations,
            folder / 'runs',
            update,
            Console(file=out, width=160),
            settings,
            first_only=first_only,
        )
        return same, out.getvalue()

    call(update=True)
    call.references = folder / 'references.json'
    return call


def test_the_same_training_passes(check):
    same, output = check()
    assert same and 'where they were' in output


@pytest.mark.parametrize('term', ['foreground', 'background', 'attention', 'relation'])
def test_a_weight_changed_by_five_percent_fails(check, term):
    defaults = dict(foreground=1e-3, background=5e-4, attention=1e-3, relation=5e-6)
    same, output = check(**{f'distill.methods.fgd.{term}_weight': 1.05 * defaults[term]})
    assert not same
    assert f'first distill.loss_fgd_{term}' in output


def test_another_length_is_refused(check):
    with pytest.raises(DistillError, match='made with 3 iterations'):
        check(iterations=4)


def test_missing_references_are_named(tmp_path):
    with pytest.raises(DistillError, match='no references'):
        run({}, tmp_path / 'none.json', 3, tmp_path, False, Console(file=io.StringIO()))


def test_references_are_readable(check):
    stored = json.loads(check.references.read_text())
    assert set(stored['pairs']['tiny']) == {'first', 'later', 'metrics'}


def test_an_update_of_one_pair_keeps_the_others(check):
    before = json.loads(check.references.read_text())['pairs']['tiny']
    with pytest.raises(DistillError, match='--update all pairs'):
        check(update=True, iterations=2, pair='second')
    check(update=True, pair='second')
    stored = json.loads(check.references.read_text())['pairs']
    assert set(stored) == {'tiny', 'second'} and stored['tiny'] == before


@pytest.mark.parametrize('drawn', [0, 1, 3])
def test_weights_do_not_depend_on_when_the_iterator_is_made(drawn):
    """Neither building the loop nor the first batch moves what is drawn after them, whatever they draw."""

    class FakeRunner:
        def build_train_loop(self, loop):
            torch.rand(drawn)
            return loop

    torch.manual_seed(0)
    torch.empty((), dtype=torch.int64).random_()
    weights, first_step = torch.rand(2), torch.rand(2)
    torch.manual_seed(0)
    runner, hook = FakeRunner(), references._SameDraws()
    references._draw_with_the_loop(runner)
    assert runner.build_train_loop('loop') == 'loop'
    assert torch.equal(torch.rand(2), weights)
    hook.before_train(runner)
    torch.rand(1 - min(drawn, 1))
    hook.before_train_iter(runner, 0)
    assert torch.equal(torch.rand(2), first_step)
    hook.before_train_iter(runner, 1)
    assert not torch.equal(torch.rand(2), first_step)


def test_first_step_alone_has_references_of_its_own(check):
    before = json.loads(check.references.read_text())['pairs']['tiny']
    check(update=True, first_only=True, iterations=99)
    stored = json.loads(check.references.read_text())
    still = stored['pairs']['tiny'].pop('still')
    assert stored['pairs']['tiny'] == before
    assert stored['iterations'] == 3
    # No layer of this student drops anything.
    assert still == before['first']
    assert check(first_only=True)[0]
    assert not check(first_only=True, **{'distill.methods.fgd.relation_weight': 1e-5})[0]
    same, output = check()
    assert same, output


def test_student_keeps_everything():
    student = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Dropout2d(0.5))

    class FakeRunner:
        model = student

    references._NoDropout().before_train(FakeRunner())
    assert [layer.p for layer in student] == [0.0, 0.0]
