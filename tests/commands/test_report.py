"""``mmkd report`` shows what the logs hold, in one page that needs nothing else and runs nothing."""

from __future__ import annotations

import html
import json
import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from _helpers.browser import chromium
from _helpers.tiny import block, build, retinanet, run_config
from _helpers.work_folders import CONFIG, start, training, validation
from mmdet.registry import MODELS

from mmkd_plugin.__main__ import main

EVIL = '<script>alert("x")</script>'
TIME = '20260101_000000'
VOID = ('meta', 'img', 'br')


class Page(HTMLParser):
    """Tables, charts and links of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self.tags: list[str] = []
        self.links: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.charts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(text)
        assert not self._open, 'an element is not closed'

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self._open.append(tag)
        values = {key: value or '' for key, value in attrs}
        assert not [key for key in values if key.startswith('on')]
        self.links += [values[key] for key in ('src', 'href', 'xlink:href', 'action', 'data') if key in values]
        self.links += re.findall(r'url\(([^)]*)\)', ' '.join(values.values()))
        if tag == 'table':
            self.tables.append([])
        elif tag == 'tr':
            self.tables[-1].append([])
        elif tag in ('td', 'th'):
            self.tables[-1][-1].append('')
        elif tag == 'path' and 'figure' in self._open and 'clip-path' in values:
            self.charts[list(self.charts)[-1]].append(values['style'])

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] in ('td', 'th'):
            self.tables[-1][-1][-1] += data
        elif self._open and self._open[-1] == 'figcaption':
            self.charts[data] = []

    def table(self, head: str) -> list[dict[str, str]]:
        """Rows of the one table that has a column of this name."""
        found = next(table for table in self.tables if head in table[0])
        return [dict(zip(found[0], row)) for row in found[1:]]


def report(out: Path, *arguments: Any) -> Page:
    """Write a page and read it."""
    assert main(['report', *map(str, arguments), '--out', str(out)]) == 0
    return Page(out.read_text(encoding='utf-8'))


def scalars(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run that was started once."""
    (file,) = folder.glob('*/vis_data/scalars.json')
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture(scope='module')
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A real distilled run, one without a teacher, one that was killed and resumed, one with names of a stranger."""
    root = tmp_path_factory.mktemp('work_dirs')
    hook = dict(type='mmkd_plugin.DistillVisualizationHook', interval=4, pictures=('attention', 'features'))
    methods = dict(fgd=dict(type='FGD', loss_weight='auto'))
    build(run_config(root / 'real', 6, distill=block(methods=methods), custom_hooks=[hook])).train()
    lines = [
        line
        for k in (1, 2, 3, 4)
        for line in (training(2 * k, loss=3.0 / k, loss_cls=2.0 / k), validation(mIoU=k / 10))
    ]
    config = dict(CONFIG, train_cfg=dict(max_iters=8, val_interval=2), model=retinanet(), default_scope='mmdet')
    start(root / 'alone', TIME, lines, config)
    start(root / 'resumed', TIME, [*lines[:3], '{"loss": 1.0, "lo'], dict(config, distill=block()))
    more = [training(6, loss=0.5, loss_cls=0.25, **{'distill.loss_fgd': 0.125}), validation(mIoU=0.75)]
    start(root / 'resumed', '20260102_000000', more, dict(config, distill=block()))
    evil: Any = {
        f'distill.loss_{EVIL}': 1.0,
        'distill.--><img src=x onerror=alert(1)>$x_{': 2.0,
        'distill.loss_' + 300 * 'x': 3.0,
    }
    # Values that cannot be read as literals stand in the page as they are.
    text = f'from os import system\nx = "{EVIL}</pre>"\n'
    check = f'Distillation at the first step, iteration 1\n{EVIL}</pre>'
    start(root / EVIL.replace('/', '-'), TIME, [training(1, **evil), validation(0, **{EVIL: 0.5})], text, [check])
    return {path.name: path for path in root.iterdir()}


@pytest.fixture(scope='module')
def written(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of all."""
    out = tmp_path_factory.mktemp('page') / 'report.html'
    assert main(['report', *map(str, folders.values()), '--out', str(out)]) == 0
    return out


@pytest.fixture
def page(written: Path) -> Page:
    return Page(written.read_text(encoding='utf-8'))


def test_numbers_are_those_of_the_logs(page: Page, folders: dict[str, Path]) -> None:
    rows = {row['name']: row for row in page.table('greatest') if row['run'] == 'real'}
    lines = [line for line in scalars(folders['real']) if 'iter' in line]
    assert len(lines) == 6
    names = set(lines[0]) - {'iter', 'step'}
    assert {'distill.loss_fgd_foreground', 'distill.fgd_weight', 'loss_cls', 'time', 'grad_norm'} <= names
    assert set(rows) == names
    for name, row in rows.items():
        values = [line[name] for line in lines]
        wanted = (values[0], values[-1], min(values), max(values))
        shown = tuple(float(row[head]) for head in ('first', 'last', 'least', 'greatest'))
        assert shown == pytest.approx(wanted, rel=1e-4), name
        assert row['lines'] == '6'


def test_metrics_stand_beside_the_undistilled_run(page: Page) -> None:
    rows = {row['run']: row for row in page.table('over the undistilled')}
    assert rows['alone']['mIoU'] == rows['alone']['best'] == '0.4 at 8'
    assert rows['alone']['over the undistilled'] == '-'
    # At iteration 6, where both were validated: 0.75 instead of 0.3.
    assert rows['resumed']['over the undistilled'] == '+0.45 at 6'
    assert rows['resumed']['starts'] == '2'
    assert [rows[name]['teacher'] for name in ('real', 'alone', 'resumed')] == ['yes', 'no', 'yes']
    assert 'resumed: 1 line of its logs is cut off or damaged' in page.text
    # One chart has the curve of both, the undistilled one dashed.
    curves = [style for style in page.charts['mIoU'] if 'stroke-width: 1.4' in style]
    assert len(curves) == 2
    assert sum('stroke-dasharray' in style for style in curves) == 1


def test_every_name_has_a_curve(page: Page, folders: dict[str, Path]) -> None:
    names = {name for line in scalars(folders['real']) for name in line if 'iter' in line} - {'iter', 'step'}
    for name in names | {'distill.loss_fgd', 'mIoU', f'distill.loss_{EVIL}', EVIL}:
        assert [style for style in page.charts[name] if 'stroke-width: 1.4' in style], name


def test_page_needs_nothing_else(page: Page) -> None:
    assert [link for link in page.links if not link.startswith(('#', 'data:image/'))] == []
    assert not {'link', 'iframe', 'object', 'embed', 'base', 'form', 'script'} & set(page.tags)
    assert '@import' not in page.text
    # Addresses may stand in a config, as text.
    assert 'http' not in re.sub(r'http-equiv|<pre>.*?</pre>', '', page.text, flags=re.S)


def test_names_of_strangers_are_text(page: Page) -> None:
    assert EVIL not in page.text
    assert page.text.count(html.escape(EVIL).replace('&quot;', '&#34;')) > 5
    assert page.tags.count('img') == 2
    # Their config is shown, and what is in it was not run.
    assert 'from os import system' in page.text
    assert 'has no config beside its log that can be read' in page.text


def test_models_are_counted(page: Page) -> None:
    rows = {(row['run'], row['model']): row for row in page.table('FLOPs')}
    teacher = build_model_of(retinanet(width=24))
    for run in ('real', 'resumed'):
        assert rows[run, 'student']['parameters'] == f'{build_model_of(retinanet()):,}'
        assert rows[run, 'teacher']['parameters'] == f'{teacher:,}'
        assert float(rows[run, 'teacher']['FLOPs'].split()[0]) > float(rows[run, 'student']['FLOPs'].split()[0]) > 0
    assert ('alone', 'teacher') not in rows
    assert rows[EVIL.replace('/', '-'), '-']['parameters'] == '-'


def build_model_of(model: dict) -> int:
    return sum(parameter.numel() for parameter in MODELS.build(model).parameters())


def test_times(page: Page) -> None:
    rows = {row['run']: row for row in page.table('seconds per step')}
    assert rows['alone']['seconds per step'] == '0.5'
    assert rows['alone']['of it waiting for data'] == '0.125'
    assert rows['alone']['seconds per validation batch'] == '0.25'
    assert rows['resumed']['to the undistilled'] == '1.00 x'


def test_self_check_pictures_block_and_config(page: Page, folders: dict[str, Path]) -> None:
    (log,) = folders['real'].glob('*/*.log')
    said = re.search(r'Distillation at the first step.*?(?=\n20)', log.read_text(), flags=re.S)
    assert said is not None
    lines = '\n'.join(line.rstrip() for line in said[0].splitlines())
    assert lines.strip() in html.unescape(page.text)
    assert page.text.count('<img ') == 2
    assert '2 of earlier steps are left out' in page.text
    assert 'loss_weight=&#39;auto&#39;' in page.text
    # The expanded config, which the run has not written down.
    assert 'architecture=dict(' in page.text
    assert "type='mmkd_plugin.DistillAlgorithm'" in html.unescape(page.text)


def test_page_is_the_same_each_time(folders: dict[str, Path], tmp_path: Path) -> None:
    pages = [
        report(tmp_path / name, folders['alone'], folders['resumed'], '--no-models') for name in ('a.html', 'b.html')
    ]
    assert pages[0].text == pages[1].text


def test_comparison_gives_the_time_at_inference(tmp_path: Path) -> None:
    for row in ('student_alone', 'fgd'):
        start(tmp_path / row / 'seed0', TIME, [training(10, loss=1.0)])
    rows = [
        dict(model=name, seed=0, time_per_image=time, parameters=1234, flops=5e9)
        for name, time in (('student alone', 1.0), ('fgd', 1.25))
    ]
    (tmp_path / 'results.json').write_text(json.dumps(rows))
    page = report(tmp_path / 'report.html', tmp_path, '--no-models')
    times = {row['run']: row for row in page.table('seconds per step')}
    assert times['fgd/seed0']['time per image, to the student alone'] == '1.25 x'
    assert page.table('FLOPs')[0]['parameters'] == '1,234'
    assert page.table('FLOPs')[0]['FLOPs'] == '5 G'


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module that leaves a file where it is imported."""
    name = 'a_module_that_a_config_names'
    (tmp_path / f'{name}.py').write_text(f'open({str(tmp_path / "ran")!r}, "w")')
    monkeypatch.syspath_prepend(tmp_path)
    yield name
    sys.modules.pop(name, None)


def test_without_models_nothing_of_a_config_runs(module: str, tmp_path: Path) -> None:
    config = dict(CONFIG, model=retinanet(), custom_imports=dict(imports=[module]))
    folder = start(tmp_path / 'run', TIME, [training(10, loss=1.0)], config)
    page = report(tmp_path / 'a.html', folder, '--no-models')
    assert not (tmp_path / 'ran').exists()
    assert page.table('FLOPs')[0]['parameters'] == '-'
    assert 'No model was built' in page.text
    report(tmp_path / 'b.html', folder)
    assert (tmp_path / 'ran').exists()


def test_model_that_cannot_be_built_is_a_dash(tmp_path: Path) -> None:
    config = dict(CONFIG, model=dict(type='NoSuchDetector'), distill=dict(teacher='gone.py', methods={}))
    page = report(tmp_path / 'report.html', start(tmp_path / 'run', TIME, [training(10, loss=1.0)], config))
    assert [row['parameters'] for row in page.table('FLOPs')] == ['-', '-']
    assert 'gone.py' in page.text


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        (['gone'], 'The work folder "gone" does not exist; give the folder'),
        (['empty'], '"empty" holds no log of a training'),
        (['run', 'empty'], '"empty" holds no log of a training'),
        (['run', '--out', 'page.txt'], '--out page.txt does not end in .html'),
        (['run', '--out', 'folder.html'], '"folder.html" is a folder'),
    ],
)
def test_mistakes_are_sentences(
    arguments: list[str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ('empty', 'folder.html'):
        Path(name).mkdir()
    start(Path('run'), TIME, [training(10, loss=1.0)])
    with pytest.raises(SystemExit) as ended:
        main(['report', *arguments, '--no-models'])
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f'error: {sentence}')
    assert not Path('report.html').exists()


@pytest.mark.parametrize('width', [1280, 400])
def test_browser_shows_it_without_a_network(written: Path, width: int) -> None:
    with chromium() as browser:
        shown = browser.new_page(viewport=dict(width=width, height=900))
        said: list[str] = []
        asked: list[str] = []
        shown.on('console', lambda message: said.append(message.text))
        shown.on('pageerror', lambda error: said.append(str(error)))
        shown.on('request', lambda request: asked.append(request.url))
        shown.goto(written.as_uri())
        # What is folded must fit as well.
        shown.evaluate('document.querySelectorAll("details").forEach(item => { item.open = true; })')
        assert shown.evaluate('document.documentElement.scrollWidth') <= width
        assert said == []
        assert [url for url in asked if not url.startswith('data:')] == [written.as_uri()]
        widths = shown.evaluate('[...document.querySelectorAll("figure svg")].map(item => item.clientWidth)')
        assert len(widths) == shown.evaluate('document.querySelectorAll("figure svg").length') > 10
        # At 400 pixels a chart takes the width of the page, so that its numbers can be read.
        assert min(widths) > 300
        loaded = shown.evaluate('[...document.images].map(item => item.complete && item.naturalWidth > 0)')
        assert loaded == [True, True]
