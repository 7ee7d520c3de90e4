"""Mistakes: those that were made before end well, and the fuzz would see it if they did not."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from benchmarks.fuzz.case import EITHER, SCENES, WRONG
from benchmarks.fuzz.corpus import corpus
from benchmarks.fuzz.draws import KINDS, draw_case, plain_case
from benchmarks.fuzz.page import Drawn, page
from benchmarks.fuzz.trial import RUNS, SENTENCE, SILENT, TRACEBACK, Ground, Verdict

CORPUS = corpus()
KNOWN = 'test_a_known_mistake'


@pytest.fixture(scope='module')
def ground(tmp_path_factory):
    return Ground(tmp_path_factory.mktemp('fuzz'))


@pytest.fixture(scope='module')
def played(ground, request):
    """The known mistakes that were chosen, two of them played at a time."""
    chosen = [item.callspec.params['name'] for item in request.session.items if item.originalname == KNOWN]
    with ThreadPoolExecutor(2) as pool:
        yield {name: pool.submit(ground.play, CORPUS[name][0], f'case{at}') for at, name in enumerate(chosen)}


@pytest.mark.parametrize('name', CORPUS)
def test_a_known_mistake(played, name):
    verdict = played[name].result()
    assert verdict.outcome == CORPUS[name][1], f'{verdict.outcome}: {verdict.why}'


def test_a_mistake_without_a_word_is_silent(ground):
    case = plain_case('mine', SCENES['retina'])
    case.sort = WRONG
    assert ground.play(case, 'case').outcome == SILENT


def test_a_setting_without_effect_is_silent(ground):
    case = plain_case('mine', SCENES['retina'])
    case.before = dict(case.values)
    case.sort = EITHER
    assert ground.play(case, 'case') == Verdict(SILENT, 'it had no effect')


def test_an_undistilled_run_is_silent(ground):
    case = plain_case('mine', SCENES['retina'])
    del case.values['distill']
    case.bases = case.bases[:1]
    assert ground.play(case, 'case') == Verdict(SILENT, 'it was not distilled')


def test_code_in_a_file_that_runs_is_silent(ground):
    case = plain_case('mine', SCENES['retina'])
    case.teacher_file = 'code in it'
    case.distill.update(teacher_ckpt='teacher.pth', trust_checkpoint=True)
    assert ground.play(case, 'case') == Verdict(SILENT, 'the code in a file was run')


def test_a_command_that_hangs_is_no_success(ground):
    verdict = ground.play(plain_case('mine', SCENES['retina']), 'case', seconds=0.1)
    assert verdict == Verdict(TRACEBACK, 'not done in 0.1 seconds')


@pytest.mark.parametrize(
    ('screen', 'outcome'),
    [
        ('error: No teacher.\n', SENTENCE),
        ('usage: train.py [-h]\ntrain.py: error: unrecognized arguments: --x\n', SENTENCE),
        ('Traceback (most recent call last):\nKeyError: 1\n', TRACEBACK),
        ('Traceback (most recent call last):\nKeyError: 1\nerror: No teacher.\n', TRACEBACK),
        ('Killed\n', TRACEBACK),
        ('', TRACEBACK),
    ],
)
def test_what_a_screen_says(ground, tmp_path, screen, outcome):
    (tmp_path / 'screen.txt').write_text(screen)
    (tmp_path / 'result.json').write_text('{"status": 2}')
    assert ground.judge(plain_case('mine', SCENES['retina']), tmp_path).outcome == outcome


@pytest.mark.parametrize('kind', KINDS)
def test_draws_are_repeatable_and_differ(kind):
    texts = [KINDS[kind](random.Random(seed)) for seed in range(20)]
    again = [KINDS[kind](random.Random(seed)) for seed in range(20)]
    assert [case.told for case in texts] == [case.told for case in again]
    assert len({case.told for case in texts}) > 3
    for case in texts:
        compile(case.text(), 'config.py', 'exec')


def test_every_kind_is_drawn():
    assert {draw_case(random.Random(seed)).kind for seed in range(200)} == set(KINDS)


def test_the_page_names_what_failed():
    found = [
        Drawn(7, 'weights', 'weights: nan', Verdict(SILENT, 'nothing was said of it')),
        Drawn(8, 'weights', 'weights: bare', Verdict(RUNS)),
    ]
    text = page(found, 7)
    assert '2 draws: 1 runs, 0 one sentence, 0 traceback, 1 silent' in text
    assert '- 7, weights, weights: nan: silent, nothing was said of it' in text
    assert '| weights | 1 | 0 | 0 | 1 |' in text
