"""What a runner of MMEngine does beside its own work where the config has a ``distill`` block."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable

from mmengine.config import ConfigDict
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import DefaultScope
from mmengine.runner import BaseLoop
from torch import nn

from mmkd_plugin.algorithms import DistillAlgorithm
from mmkd_plugin.block import DistillBlock, expand_block, mix_unlabelled, require_plain_student, required_hooks
from mmkd_plugin.compat.checkpoint import readable_refusal
from mmkd_plugin.compat.unread_block import refuse_misspelt_block
from mmkd_plugin.engine.compiling import compile_student
from mmkd_plugin.engine.coverage import Coverage
from mmkd_plugin.engine.finite_hook import faults_explained
from mmkd_plugin.engine.preflight import check_classes, require_annotations, told_in_a_sentence
from mmkd_plugin.engine.state_hook import algorithm_of
from mmkd_plugin.engine.teacher_cache import TeacherCache
from mmkd_plugin.engine.work_folder import in_its_own_folder
from mmkd_plugin.errors import DistillError
from mmkd_plugin.registry import HOOKS
from mmkd_plugin.teachers import build_teacher, model_config
from mmkd_plugin.utilities.unlabelled import folders_of

if TYPE_CHECKING:
    from mmengine.runner import Runner as _Base
else:
    _Base = object

_FINITE = 'mmkd_plugin.FiniteHook'


class Distilling(_Base):
    """Reads the block, builds teacher and distiller when the training starts, and checks what is trained and tested.

    It stands before one of MMEngine's runners, which says how the student is built, wrapped and saved.
    """

    reads_distill_block = True
    """Says so to :mod:`mmkd_plugin.compat.unread_block`; other runners refuse to train a config with a block."""

    model: Any
    _algorithm_config: ConfigDict | None = None
    _block: DistillBlock | None = None
    _train_dataloader: Any
    _tests = False
    _mixed = False
    _cache: TeacherCache | None = None
    _marked = False

    def __init__(self, model: nn.Module | dict, *args: Any, cfg: Any = None, **kwargs: Any) -> None:
        block = (cfg or {}).get('distill')
        if block is not None:
            # The names of losses are looked up where the models of the config are.
            with DefaultScope.overwrite_default_scope((cfg or {}).get('default_scope')):
                self._block = DistillBlock.parse(block)
                require_plain_student(model)
        if isinstance(model, dict) and str(model.get('type')).split('.')[-1] == DistillAlgorithm.__name__:
            self._algorithm_config = ConfigDict(model)
            model = model['architecture']
        super().__init__(model, *args, cfg=cfg, **kwargs)

    @property
    def _distils(self) -> bool:
        return self._algorithm_config is not None or (self._block is not None and bool(self._block.methods))

    @in_its_own_folder
    def train(self) -> nn.Module:
        """Add teacher and distiller, then train as usual."""
        self._tests = False
        refuse_misspelt_block(self.cfg)
        self._check_engine()
        if self._train_loop is not None and isinstance(self._train_dataloader, dict):
            require_annotations(self._train_dataloader, 'training')
        self.mix_unlabelled()
        if not self.add_distillation() and not self._distils:
            if self._block is not None:
                self.logger.info('Distillation is off: every method of the distill block has weight 0.')
            elif self.cfg.get('runner_type'):
                self.logger.info('Distillation is off: the config asks for its runner, but has no distill block.')
        self._register_missing_hooks()
        with told_in_a_sentence(), faults_explained(self):
            return super().train()

    def _check_engine(self) -> None:
        """Refuse settings that another runner reads."""

    def add_distillation(self) -> bool:
        """Add teacher and distiller to the student where the config asks for them and they are not there yet.

        Returns:
            Whether they were added.
        """
        if not self._distils or algorithm_of(self) is not None:
            return False
        algorithm = self._build_algorithm(self.model)
        for teacher in algorithm.teachers.values():
            self.logger.info(teacher.report)
        compile_student(algorithm, self.cfg.get('compile'), self.logger)
        self.model = self._wrap_for_run(algorithm)
        return True

    def _wrap_for_run(self, model: Any) -> Any:
        """Wrap what is trained or tested, now that it is known which."""
        return model

    def mix_unlabelled(self) -> None:
        """Let the batches hold the images without labels that the block names, once, where it distils."""
        if self._block is None or self._block.unlabelled is None or not self._block.methods or self._mixed:
            return
        folders_of(self._block.unlabelled.images)
        self._train_dataloader = mix_unlabelled(self._train_dataloader, self._block.unlabelled)
        self._mixed = True

    def build_train_loop(self, loop: dict | BaseLoop) -> BaseLoop:
        """Build the loop; with the data set at hand, compare its classes with the teacher's."""
        cache = self.teacher_cache()
        if cache is not None and isinstance(loop, dict) and isinstance(self._train_dataloader, dict):
            self._train_dataloader = cache.marked(self._train_dataloader)
            self._marked = True
        loop = super().build_train_loop(loop)
        batches: Any = getattr(loop.dataloader, 'batch_sampler', None)
        if getattr(batches, 'unlabelled', 0):
            self.logger.info(
                f'Unlabelled images: {batches.images:,}, of which {batches.unlabelled} join the {batches.batch_size} '
                'labelled ones of each batch.'
            )
        algorithm = algorithm_of(self)
        if algorithm is not None:
            of_student = getattr(loop.dataloader.dataset, 'metainfo', None)
            source = algorithm.inherited_teacher()
            for teacher in algorithm.teachers.values():
                of_teacher = teacher.meta.get('dataset_meta', teacher.meta)
                inherited = teacher is source
                by_class = teacher.same_classes or (inherited and algorithm.inherit != 'auto')
                if not check_classes(of_student, of_teacher, by_class) and inherited:
                    algorithm.inherit = False
            if cache is not None and self._marked:
                cache.plan(algorithm, loop.dataloader, self.logger.info)
        return loop

    def val(self) -> dict:
        """Evaluate the student."""
        self._tests = True
        self.model = self._wrap_for_run(self.model)
        return super().val()

    def resume(self, filename: str, *args: Any, **kwargs: Any) -> None:
        """Resume, or say in one sentence why the optimizer's state does not fit."""
        try:
            super().resume(filename, *args, **kwargs)
        except ValueError as error:
            if 'parameter group' not in str(error):
                raise
            raise DistillError(
                f'The optimizer state in "{filename}" is that of another distill block, or of none; resume with the '
                'block the run was started with, or start a new run from the student with load_from.'
            ) from error

    def test(self) -> dict:
        """Test the student."""
        self._tests = True
        if self._test_loop is not None and isinstance(self._test_dataloader, dict):
            require_annotations(self._test_dataloader, 'test')
        self.model = self._wrap_for_run(self.model)
        return super().test()

    def load_checkpoint(self, filename: str, map_location: str | Callable = 'cpu', *args: Any, **kwargs: Any) -> dict:
        """Load a checkpoint, or say in one sentence why it is refused; what is tested must be filled by it."""
        coverage = Coverage(self.model)
        with readable_refusal(filename, weights=True):
            checkpoint = super().load_checkpoint(filename, map_location, *args, **kwargs)
        if self._tests:
            coverage.require_all(checkpoint, filename)
        return checkpoint

    def _build_algorithm(self, student: nn.Module) -> DistillAlgorithm:
        """Put the built student together with its teacher and distiller."""
        if self._algorithm_config is not None:
            return ROOT_MODELS.build({**self._algorithm_config, 'architecture': student})
        block = self._block
        assert block is not None
        block.require_teacher()
        cache = self.teacher_cache()
        if cache is not None:
            sources = cache.sources(block, (self.cfg.get('model') or {}).get('data_preprocessor'))
            known = {name: source.taps for name, source in sources.items()}
            return DistillAlgorithm(architecture=student, **expand_block(block, student, known, sources))
        teachers = {
            name: build_teacher(
                model_config(item.teacher), item.teacher_ckpt, item.trust_checkpoint, item.teacher_prefix
            )
            for name, item in block.used_teachers().items()
        }
        built = {name: teacher.model for name, teacher in teachers.items()}
        return DistillAlgorithm(architecture=student, **expand_block(block, student, built, dict(teachers)))

    def teacher_cache(self) -> TeacherCache | None:
        """The kept records of the teachers, None where the block keeps none."""
        block = self._block
        if self._cache is None and block is not None and block.methods and block.teacher_cache is not None:
            loader = self._train_dataloader
            loader = loader if isinstance(loader, dict) else self.cfg.get('train_dataloader')
            self._cache = TeacherCache(block, loader, self.model.data_preprocessor)
        return self._cache

    def _register_missing_hooks(self) -> None:
        """Add the hooks that the config does not name itself; a student alone is watched too."""
        algorithm = algorithm_of(self)
        adversaries = algorithm is not None and bool(algorithm.adversaries)
        self_check = self._block is not None and self._block.self_check
        configs = required_hooks(adversaries, self_check) if algorithm is not None else [dict(type=_FINITE)]
        for config in configs:
            hook = HOOKS.build(config)
            if not any(isinstance(present, type(hook)) for present in self.hooks):
                self.register_hook(hook)
