"""Adam on all parameters at once, for as long as an update takes."""

from __future__ import annotations

from collections.abc import Sequence

import torch as th
from torch import nn
from torch.optim.adam import adam


class FlatAdam:
    """
    The steps of an Adam, taken on one tensor in which all parameters lie side by side.

    For small networks most of a step's time goes into the bookkeeping of single parameters. The result is the same up to the
    last bits, in which arithmetic on whole vectors and on their ends differs. Until :meth:`finish`, parameters and their
    gradients are views of flat tensors, and the optimizer knows nothing.

    :param optimizer: for which :func:`sb3_rmdp.common.plain_case.is_plain_adam` is true
    :param parameters: all of its parameters, in the order in which they are to lie
    """

    def __init__(self, optimizer: th.optim.Optimizer, parameters: Sequence[nn.Parameter]):
        self.optimizer, self.parameters = optimizer, list(parameters)
        self._group = optimizer.param_groups[0]
        states = [optimizer.state.get(parameter, {}) for parameter in self.parameters]
        self._value = th.cat([parameter.detach().reshape(-1) for parameter in self.parameters])
        self.gradient = th.zeros_like(self._value)
        if any(states):
            self._step = states[0]["step"].clone()
            self._mean, self._square = (
                th.cat([state[name].reshape(-1) for state in states]) for name in ("exp_avg", "exp_avg_sq")
            )
        else:
            self._step = th.zeros((), dtype=th.float32, device=self._value.device)
            self._mean, self._square = th.zeros_like(self._value), th.zeros_like(self._value)
        gradients = self.pieces(self.gradient)
        for parameter, value in self.pieces(self._value).items():
            parameter.data, parameter.grad = value, gradients[parameter]

    def step(self) -> None:
        """One step along ``gradient``, with the learning rate that the optimizer has now."""
        beta1, beta2 = self._group["betas"]
        adam(
            [self._value],
            [self.gradient],
            [self._mean],
            [self._square],
            [],
            [self._step],
            fused=True,
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=self._group["lr"],
            weight_decay=0.0,
            eps=self._group["eps"],
            maximize=False,
        )

    def finish(self) -> None:
        """Give every parameter its own value, and the optimizer its state."""
        values, means, squares = (self.pieces(flat) for flat in (self._value, self._mean, self._square))
        for parameter in self.parameters:
            parameter.data, parameter.grad = values[parameter].clone(), None
            if float(self._step) > 0:
                self.optimizer.state[parameter] = {
                    "step": self._step.clone(),
                    "exp_avg": means[parameter].clone(),
                    "exp_avg_sq": squares[parameter].clone(),
                }

    def pieces(self, flat: th.Tensor) -> dict[th.Tensor, th.Tensor]:
        """
        :param flat: a number for each number of the parameters, in their order
        :return: views of it in the shapes of the parameters
        """
        pieces = flat.split([parameter.numel() for parameter in self.parameters])
        return {parameter: piece.view_as(parameter) for parameter, piece in zip(self.parameters, pieces, strict=True)}
