"""A discriminator that is trained in turns with the student."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_reduce_params
from mmengine.optim import AmpOptimWrapper, OptimWrapper, build_optim_wrapper
from torch import Tensor, nn

from mmkd_plugin.errors import DistillError


class Adversary:
    """The discriminator of one loss, with its own optimizer.

    Its parameters require no gradient except during its own step, so that the student's optimizer, its clipping and
    the buckets of a distributed wrapper never see them. The step uses the tensors that the student's step read.

    Args:
        loss: Has a ``discriminator`` and ``discriminator_terms``, such as
            :class:`mmkd_plugin.methods.HolisticLoss`.
        optimizer: Config of the discriminator's optimizer.
        optim_wrapper: Further keys of its optimizer wrapper; by default type, accumulation and clipping are those of
            the student's.
        param_scheduler: One config or several of MMEngine's schedulers.
    """

    def __init__(
        self,
        loss: Any,
        optimizer: dict,
        optim_wrapper: dict | None = None,
        param_scheduler: dict | list | None = None,
    ) -> None:
        self.loss = loss
        self.terms: dict[str, Tensor] = {}
        self.schedulers: list = []
        self.param_scheduler = param_scheduler
        self._optimizer = optimizer
        self._options = dict(optim_wrapper or {})
        self._arguments: dict[str, Tensor] | None = None
        self.wrapper: OptimWrapper
        self.discriminator.requires_grad_(False)

    @property
    def discriminator(self) -> nn.Module:
        """The network that is trained."""
        return self.loss.discriminator

    def build_optimizer(self, student: Any, name: str) -> None:
        """Build the optimizer.

        Args:
            student: The student's optimizer wrapper, whose type, accumulation and clipping are the defaults.
            name: Start of the name under which the gradient's norm is logged.
        """
        config: dict[str, Any] = dict(
            type='AmpOptimWrapper' if isinstance(student, AmpOptimWrapper) else 'OptimWrapper'
        )
        config['accumulative_counts'] = getattr(student, '_accumulative_counts', 1)
        if getattr(student, 'clip_grad_kwargs', None):
            kind = 'value' if student.clip_func is torch.nn.utils.clip_grad_value_ else 'norm'
            config['clip_grad'] = dict(type=kind, **student.clip_grad_kwargs)
        config.update(self._options, optimizer=dict(self._optimizer))
        self.wrapper = build_optim_wrapper(self.discriminator, config)
        if self.wrapper.clip_grad_kwargs:
            self.wrapper.grad_name = f'{name}.{self.wrapper.grad_name}'

    def remember(self, arguments: dict[str, Tensor]) -> None:
        """Keep what the student's term was computed from until the discriminator's step.

        Raises:
            DistillError: If that of the iteration before is still there because nothing trains the discriminator.
        """
        if self._arguments is not None and not hasattr(self, 'wrapper'):
            raise DistillError(
                "Nothing trains the discriminator; add dict(type='mmkd_plugin.AdversarialHook') to custom_hooks."
            )
        self._arguments = {key: value.detach() for key, value in arguments.items()}

    def step(self, *seeds: int) -> None:
        """Do one step on the remembered tensors; gradients are averaged over the processes.

        Args:
            *seeds: Numbers from which the mixtures of the gradient penalty are drawn, so that a resumed run draws the
                same and the student's own random numbers stay as they are.
        """
        self.discriminator.requires_grad_(True)
        try:
            terms = self.compute(*seeds)
            if not terms:
                self.terms = {}
                return
            self.wrapper.backward(self.wrapper.scale_loss(sum(terms.values())))
            if self.wrapper.should_update():
                all_reduce_params(_gradients(self.discriminator.parameters()), op='mean')
                self.wrapper.step()
                self.wrapper.zero_grad()
        finally:
            self.discriminator.requires_grad_(False)
        self.terms = {key: value.detach() for key, value in terms.items()}

    def compute(self, *seeds: int) -> dict[str, Tensor]:
        """What the discriminator minimises on the remembered tensors, which are forgotten; empty where there are none.

        Args:
            *seeds: As for :meth:`step`.

        Returns:
            Its terms by name.
        """
        if self._arguments is None:
            return {}
        arguments, self._arguments = self._arguments, None
        generator = torch.Generator().manual_seed(int(np.random.SeedSequence(seeds).generate_state(1)[0]))
        teacher = arguments['teacher']
        mix = torch.rand(len(teacher), 1, 1, 1, generator=generator).to(teacher.device, non_blocking=True)
        return self.loss.discriminator_terms(**arguments, mix=mix)

    def state_dict(self) -> dict[str, Any]:
        """State of optimizer and schedulers; the weights are the loss's."""
        return dict(
            optimizer=self.wrapper.state_dict(), schedulers=[scheduler.state_dict() for scheduler in self.schedulers]
        )

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`.

        Raises:
            DistillError: If it is that of another optimizer or schedule.
        """
        try:
            self.wrapper.load_state_dict(state['optimizer'])
            if len(state['schedulers']) != len(self.schedulers):
                raise ValueError('Another number of schedulers.')
            for scheduler, saved in zip(self.schedulers, state['schedulers']):
                scheduler.load_state_dict(saved)
        except (KeyError, ValueError) as error:
            raise DistillError(
                'The checkpoint holds another optimizer or schedule of the discriminator; resume with the block it was '
                'trained with, or use load_from for the student alone.'
            ) from error


def _gradients(parameters: Iterable[nn.Parameter]) -> list[Tensor]:
    """The gradients that exist."""
    return [parameter.grad for parameter in parameters if parameter.grad is not None]
