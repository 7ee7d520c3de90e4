"""A method of a user's own package: how the block finds it, and that it trains."""

from __future__ import annotations

import sys
import textwrap
from typing import Any

import pytest
import torch
from _helpers.tiny import batch, block, run_config
from mmengine.config import Config
from mmengine.registry import MODELS

from mmkd_plugin.block import DistillBlock, expand_config
from mmkd_plugin.errors import DistillError
from mmkd_plugin.registry import METHODS
from mmkd_plugin.registry import MODELS as PLUGIN_MODELS

SOURCE = textwrap.dedent(
    '''
    """Half the squared distance, as a user writes it."""

    from __future__ import annotations

    from typing import Dict

    from torch import Tensor

    from mmkd_plugin.methods import DistillLoss, LevelMethod
    from mmkd_plugin.registry import METHODS, MODELS
    from mmkd_plugin.utilities.settings import Factor, Positive


    @MODELS.register_module()
    class MyLoss(DistillLoss):
        """The distance of two features in units of a scale.

        Args:
            scale: The unit.
            loss_weight: Factor on the term; 0 switches the method off.
        """

        def __init__(self, scale: Positive = 2.0, loss_weight: Factor = 1.0) -> None:
            super().__init__()
            self.scale = scale
            self.loss_weight = loss_weight

        def terms(self, student: Tensor, teacher: Tensor) -> Dict[str, Tensor]:
            """The term."""
            return {'distance': self.loss_weight * ((student - teacher) / self.scale).square().mean()}


    @METHODS.register_module()
    class MyMethod(LevelMethod):
        """The distance on every level of the neck."""

        losses = {'': MyLoss}
    '''
)
PLAIN = SOURCE.replace('@METHODS.register_module()\n', '').replace('@MODELS.register_module()\n', '')


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Writes a package, whose modules and registered parts are gone afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)

    def write(**files: str) -> None:
        folder = tmp_path / 'my_pkg'
        folder.mkdir()
        for name, text in dict({'__init__': ''}, **files).items():
            folder.joinpath(f'{name}.py').write_text(text)

    yield write
    for name in set(sys.modules) - before:
        if name.partition('.')[0] == 'my_pkg':
            del sys.modules[name]
    for registry in (METHODS, PLUGIN_MODELS):
        for name in [name for name, part in registry.module_dict.items() if part.__module__.startswith('my_pkg')]:
            del registry.module_dict[name]


def config(tmp_path, kind: Any, *imports: str, **keys: Any) -> Config:
    """A config file with the method, read as a user's is."""
    cfg = run_config(tmp_path, distill=block(methods=dict(own=dict(type=kind, **keys))))
    if imports:
        cfg.custom_imports = dict(imports=list(imports), allow_failed_imports=False)
    cfg.dump(tmp_path / 'config.py')
    return Config.fromfile(tmp_path / 'config.py')


def losses(cfg: Config) -> dict[str, Any]:
    """The losses of one step with an expanded config, after it was printed and read again."""
    model = MODELS.build(Config.fromstring(cfg.pretty_text, '.py').model).train()
    return model(**batch(model), mode='loss')


@pytest.mark.parametrize(
    ('files', 'imports', 'kinds'),
    [
        (dict(__init__=SOURCE), ['my_pkg'], ['MyMethod', 'my_pkg.MyMethod']),
        (
            dict(methods=SOURCE),
            ['my_pkg.methods'],
            ['MyMethod', 'my_pkg.MyMethod', 'my_pkg.methods.MyMethod'],
        ),
        (dict(__init__=SOURCE), [], ['my_pkg.MyMethod']),
        (dict(methods=SOURCE), [], ['my_pkg.methods.MyMethod']),
        (dict(methods=PLAIN), [], ['my_pkg.methods.MyMethod']),
    ],
    ids=['package', 'module', 'package without import', 'module without import', 'not registered'],
)
def test_method_is_found_by_its_name(package, tmp_path, files, imports, kinds):
    package(**files)
    for kind in kinds:
        method = DistillBlock.parse(config(tmp_path, kind, *imports, scale=3).distill).methods['own']
        assert type(method).__name__ == 'MyMethod' and method.scale == 3.0 and method.loss_weight == 1.0


@pytest.mark.parametrize('source', [SOURCE, PLAIN], ids=['registered', 'not registered'])
def test_method_is_found_as_a_class_and_trains(package, tmp_path, source):
    package(methods=source)
    from my_pkg.methods import MyMethod

    cfg = run_config(tmp_path, distill=block(methods=dict(own=dict(type=MyMethod, scale=4.0))))
    torch.manual_seed(0)
    once = losses(expand_config(cfg))['distill.loss_own_distance']
    cfg.distill.methods.own.scale = 2.0
    torch.manual_seed(0)
    torch.testing.assert_close(losses(expand_config(cfg))['distill.loss_own_distance'], 4 * once)


def test_its_keys_are_checked_like_those_of_the_plugin(package, tmp_path):
    package(methods=SOURCE)
    for keys, message in (
        (dict(scale=0), r'"distill.methods.own.scale" is 0; it must be a number above 0\.'),
        (dict(scael=1), r'"distill.methods.own.scael" is not a key.*did you mean "scale"'),
        (dict(weight=1), r'"distill.methods.own.weight" is now called otherwise; write loss_weight\.'),
    ):
        with pytest.raises(DistillError, match=message):
            DistillBlock.parse(config(tmp_path, 'my_pkg.methods.MyMethod', **keys).distill)


@pytest.mark.parametrize(
    ('kind', 'message'),
    [
        ('MyMethd', r"is 'MyMethd', which is no method .*imports=\['<your package>'\].*did you mean \"MyMethod\"\?$"),
        ('my_pkg.MyMethd', r"imports=\['my_pkg'\]\)\): did you mean \"MyMethod\"\?$"),
        ('mmkd_plugin.FDG', r"is 'mmkd_plugin.FDG', which is no method: did you mean .*\"FGD\"\?$"),
        ('other_pkg.Wavelets', r"imports=\['other_pkg'\]\)\): valid names are .*\"FGD\""),
        ('..x.FGD', r'which is no method'),
        (5, r'is 5, which is no method'),
        ('my_pkg.methods.MyLoss', r'is MyLoss, which is no method; derive it from mmkd_plugin.methods.Method'),
    ],
)
def test_unknown_method_is_one_sentence(package, tmp_path, kind, message):
    package(methods=SOURCE)
    with pytest.raises(DistillError, match=message) as caught:
        DistillBlock.parse(config(tmp_path, kind, 'my_pkg.methods').distill)
    assert str(caught.value).startswith('"distill.methods.own.type" is ') and '\n' not in str(caught.value)


def test_required_setting_that_is_not_written_is_named(package, tmp_path):
    package(methods=SOURCE.replace('scale: Positive = 2.0', 'scale: Positive'))
    with pytest.raises(DistillError, match=r'"distill.methods.own.scale" is missing; it must be a number above 0\.'):
        DistillBlock.parse(config(tmp_path, 'my_pkg.methods.MyMethod').distill)


def test_weight_of_a_teacher_reaches_a_field_of_the_methods_own(package, tmp_path):
    source = SOURCE + textwrap.dedent(
        """
        import dataclasses


        @METHODS.register_module()
        @dataclasses.dataclass
        class Weighed(LevelMethod):
            losses = {'': MyLoss}
            loss_weight: float = 0.5
        """
    )
    package(methods=source)
    written = dict(
        teachers=dict(one=dict(teacher=None, loss_weight=0.5)),
        methods=dict(own=dict(type='my_pkg.methods.Weighed', loss_weight=3)),
    )
    assert DistillBlock.parse(written).methods['own'].loss_weight == 1.5


def test_types_for_checkers_alone_leave_the_settings_unchecked(package, tmp_path):
    source = SOURCE.replace('import Dict\n', 'import TYPE_CHECKING, Dict\n')
    source = source.replace('@MODELS', 'if TYPE_CHECKING:\n    from my_types import Scale\n\n\n@MODELS', 1)
    package(methods=source.replace('scale: Positive', 'scale: Scale'))
    method = DistillBlock.parse(config(tmp_path, 'my_pkg.methods.MyMethod', scale=3).distill).methods['own']
    assert method.scale == 3


@pytest.mark.parametrize('source', [SOURCE, PLAIN], ids=['registered', 'not registered'])
def test_loss_of_a_package_is_found_by_its_path(package, tmp_path, source):
    package(losses=source)
    loss = dict(type='my_pkg.losses.MyLoss', scale=3.0)
    cfg = config(tmp_path, 'Feature', loss=loss, loss_weight=2)
    assert losses(expand_config(cfg))['distill.loss_own_distance'] > 0


def test_registered_loss_is_found_behind_the_name_of_its_package(package, tmp_path):
    package(losses=SOURCE)
    cfg = config(tmp_path, 'Feature', 'my_pkg.losses', loss=dict(type='my_pkg.MyLoss'))
    [kind] = {loss.type for loss in expand_config(cfg).model.distiller.distill_losses.values()}
    assert kind == 'mmkd_plugin.MyLoss'
