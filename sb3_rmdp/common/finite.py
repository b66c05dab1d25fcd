"""
Numbers that are not finite, found where they enter.

A single one would spread: through running moments into every observation from then on, through a loss into every parameter.
Errors name who gave it and where, before it is learned from.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.vec_env import VecEnv, unwrap_vec_normalize
from torch import nn

Observations = np.ndarray | Mapping[str, np.ndarray] | tuple[np.ndarray, ...]


def is_finite(array: np.ndarray) -> bool:
    """
    :param array: numbers of any type
    :return: whether all of them are finite
    """
    if array.dtype == np.float32 or array.dtype == np.float64:
        # Finite unless an entry is not, or is beyond all reason: cheaper than a look at each. `dot` would warn of the latter
        if math.isfinite(np.vdot(array, array)):
            return True
    return not np.issubdtype(array.dtype, np.inexact) or bool(np.isfinite(array).all())


def check_finite_observation(observation: Any) -> None:
    """
    :param observation: one observation or a batch of them, arrays or a dict of arrays
    :raises ValueError: if an entry is not finite; names it
    """
    for key, part in _parts(observation):
        array = np.asarray(part)
        if not is_finite(array):
            index = _first(array)
            raise ValueError(f"{key or 'observation'}{list(index)} is {array[index]}: observations must be finite numbers")


class ObservationCheck:
    """
    Finds what environments observe that is not finite, at the step where they do.

    A VecNormalize in front takes an observation into its moments before anybody can look at it. Its moments then become again
    what they were.

    :param env: the vec env
    """

    def __init__(self, env: VecEnv):
        normalizer = unwrap_vec_normalize(env)
        self._normalizer = normalizer if normalizer is not None and normalizer.norm_obs else None
        self._before: list[tuple[Any, Any, Any, Any]] = []

    def before(self) -> None:
        """The environment is about to observe something."""
        if self._normalizer is not None:
            moments = self._normalizer.obs_rms
            # They are replaced, not written to
            every = moments.values() if isinstance(moments, dict) else [moments]
            self._before = [(rms, rms.mean, rms.var, rms.count) for rms in every]

    def check(
        self, obs: Any, transitions: int, dones: np.ndarray | None = None, infos: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        """
        :param obs: what was observed, (n_envs, *observation shape) or a dict of such
        :param transitions: number of transitions of the training, for the message
        :param dones: True where an episode ended, so that this is the first observation of another; ``None`` after a reset
        :param infos: with the last observations of episodes that ended
        :raises ValueError: if an entry is not finite; names it
        """
        running = dones is not None and not dones.any()
        if running and self._normalizer is None and isinstance(obs, np.ndarray) and is_finite(obs):
            return  # nearly always
        for env in [] if dones is None else map(int, np.flatnonzero(dones)):
            last = infos[env].get("terminal_observation")
            for key, part in _parts(last) if last is not None else ():
                if not is_finite(np.asarray(part)):
                    self._fail(np.asarray(part)[None], key, env, "the last observation of its episode", transitions)
        raw = None if self._normalizer is None else self._normalizer.old_obs
        for seen in (raw, obs):
            for key, part in _parts(seen) if seen is not None else ():
                if not is_finite(np.asarray(part)):
                    first = dones is None or bool(dones[_first(np.asarray(part))[0]])
                    what = "the observation" + (" that its reset gave" if first else "")
                    self._fail(np.asarray(part), key, None, what, transitions)

    def _fail(self, batch: np.ndarray, key: str, env: int | None, what: str, transitions: int) -> None:
        for rms, mean, var, count in self._before:
            rms.mean, rms.var, rms.count = mean, var, count
        row, *index = _first(batch)
        entry = "" if not index else f" at entry {index[0] if len(index) == 1 else tuple(index)}"
        where = f"{what}, key {key!r}" if key else what
        raise ValueError(
            f"env {row if env is None else env} observed {batch[(row, *index)]}{entry} of {where} "
            f"(num_timesteps={transitions}): observations must be finite; fix the environment, or give a number in its place"
        )


def policy_error(policy: nn.Module, outputs: np.ndarray, representatives: np.ndarray) -> ValueError:
    """
    :param policy: of all representatives
    :param outputs: its actions or logits, (n_envs, ...), of which one is not finite
    :param representatives: who acts, (n_envs,)
    :return: an error that names them
    """
    env, *_ = _first(outputs)
    name = not_finite(policy)
    why = (
        f"parameter {name} of the policy is not finite; take an earlier checkpoint" if name else "its parameters are too large"
    )
    return ValueError(f"representative {representatives[env]} acts by {outputs[env].tolist()} in env {env}: {why}")


def check_parameters(policy: nn.Module, advice: str = "it cannot act; take an earlier checkpoint") -> None:
    """
    :param policy: a policy
    :param advice: end of the message
    :raises ValueError: if one of its numbers is not finite; names it
    """
    name = not_finite(policy)
    if name is not None:
        raise ValueError(f"parameter {name} of the policy is not finite: {advice}")


def not_finite(module: nn.Module) -> str | None:
    """
    :param module: any module
    :return: name of a parameter, or of a float64 buffer such as moments, that is not finite; ``None`` if all of them are.
        Other buffers may be masks, for which infinity is a good number
    """
    # A sum is finite unless an entry is not, or is beyond all reason: one pass without a temporary, one look at the device
    finite = [tensor.detach().sum().isfinite() for _, tensor in _numbers(module)]
    if not finite or bool(th.stack(finite).all()):
        return None
    return next((name for name, tensor in _numbers(module) if not bool(tensor.isfinite().all())), None)


@contextlib.contextmanager
def unchanged_by_failure(module: nn.Module, optimizers: Sequence[th.optim.Optimizer]) -> Iterator[None]:
    """
    Take steps; if an error is raised within, the policy and the optimizers become again what they were.

    :param module: a policy
    :param optimizers: those that take steps, with all that they change
    """
    tensors: list[th.Tensor] = [*module.parameters(), *module.buffers()]
    tensors += [parameter for optimizer in optimizers for group in optimizer.param_groups for parameter in group["params"]]
    kept = [(tensor, tensor.detach().clone()) for tensor in {id(tensor): tensor for tensor in tensors}.values()]
    states = [copy.deepcopy(optimizer.state_dict()) for optimizer in optimizers]
    try:
        yield
    except Exception:
        with th.no_grad():
            for tensor, value in kept:
                tensor.copy_(value)
        for optimizer, state in zip(optimizers, states, strict=True):
            optimizer.load_state_dict(state)
        raise


def _numbers(module: nn.Module) -> Iterator[tuple[str, th.Tensor]]:
    yield from ((name, parameter) for name, parameter in module.named_parameters() if parameter.is_floating_point())
    yield from ((name, buffer) for name, buffer in module.named_buffers() if buffer.dtype == th.float64)


def _parts(observation: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(observation, Mapping):
        yield from observation.items()
    else:
        yield "", observation


def _first(array: np.ndarray) -> tuple[int, ...]:
    """Where the first entry is that is not finite."""
    return tuple(map(int, np.argwhere(~np.isfinite(array))[0]))
