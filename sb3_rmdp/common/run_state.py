"""
Where a training is, in the file of its model: a training that goes on from there is the one that was never broken off.

Weights do not change while a rollout is collected. What a file holds is therefore where the training was when the rollout
began in which it was written, or where it is between two rollouts, and who goes on plays the rollout again, with the same
random numbers, from the same places within the same episodes: to the last bit. It is set in the first rollout of
``learn(reset_num_timesteps=False)``, and not on loading, since a model that is only evaluated leaves random numbers alone.
"""

from __future__ import annotations

import contextlib
import copy
import io
import warnings
import zipfile
from collections import deque
from typing import Any, TypeVar

import numpy as np
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.type_aliases import MaybeCallback
from stable_baselines3.common.vec_env import VecEnv

from sb3_rmdp.common.assignment import Assignment
from sb3_rmdp.common.callback_states import callback_states, set_callback_states
from sb3_rmdp.common.packing import is_plain, pack, unpack
from sb3_rmdp.common.plain_data import NotPlain, decode, encode
from sb3_rmdp.common.policies import RepresentedActorCriticPolicy
from sb3_rmdp.common.random_numbers import random_state, set_random_state
from sb3_rmdp.common.returns import ReturnTracker
from sb3_rmdp.common.trajectories import TrajectoryRecorder
from sb3_rmdp.common.welfare import Welfare
from sb3_rmdp.vec_env.episodes import UnseenEnds
from sb3_rmdp.vec_env.states import set_vec_env_state, vec_env_state

#: Name of the entry in a file, and that under which ``save`` knows it: ``save(path, exclude=["run_state"])`` leaves it out
RUN_STATE = "run_state"

#: What callbacks may change where a rollout begins, and would change again when it is played again
HYPERPARAMETERS = (
    *("batch_size", "clip_range", "clip_range_vf", "ent_coef", "gae_lambda", "gamma", "learning_rate", "lr_schedule"),
    *("max_grad_norm", "n_epochs", "normalize_advantage", "target_kl", "vf_coef"),
)

SelfResumable = TypeVar("SelfResumable", bound="ResumableRun")


class ResumableRun(OnPolicyAlgorithm):
    """The part of a represented algorithm that writes down where a training is, and goes on there."""

    assignment: Assignment
    welfare: Welfare
    policy: RepresentedActorCriticPolicy
    #: Whose turn it is in each environment, (n_envs,): of use to whoever goes on in as many environments
    _acting: np.ndarray | None = None
    #: What is known of running episodes; made anew by whoever goes on
    _return_tracker: ReturnTracker | None = None
    _recorder: TrajectoryRecorder | None = None
    _unseen_ends: UnseenEnds | None = None
    #: Mean returns last seen of each representative, (k, n_rewards); empty before the first training
    _mean_returns: th.Tensor
    #: Packed, from a file, until a training goes on or begins anew; else empty
    _run_state = b""
    #: Where the training was when the rollout began; ``None`` between two rollouts
    _rollout_start: dict[str, Any] | None = None
    _run_callback: BaseCallback | None = None
    #: Where the last training ended, for files that are written when the processes of its environments are closed
    _at_end: dict[str, Any] | None = None
    #: Rollouts since the training began, however often it was broken off, and between two lines of the log
    _n_rollouts = 0
    _log_interval = 1

    def learn(
        self: SelfResumable,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str = "RepresentedOnPolicyAlgorithm",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfResumable:
        """See SB3; rollouts between two lines of the log are counted on in a training that goes on."""
        counted = isinstance(log_interval, int) and log_interval > 1
        self._log_interval = log_interval if counted else 1
        every = 1 if counted else log_interval
        super().learn(total_timesteps, callback, every, tb_log_name, reset_num_timesteps, progress_bar)
        between = self._rollout_start is None and self._run_callback is not None
        self._at_end = self._whereabouts_between_rollouts() if between else None
        return self

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        reset_num_timesteps: bool = True,
        tb_log_name: str = "run",
        progress_bar: bool = False,
    ) -> tuple[int, BaseCallback]:
        if reset_num_timesteps:
            self._run_state = b""
            self._n_rollouts = 0
        return super()._setup_learn(total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar)

    def _init_callback(self, callback: MaybeCallback, progress_bar: bool = False) -> BaseCallback:
        # Known before the first rollout, since a callback may save the model where the training starts
        self._run_callback = super()._init_callback(callback, progress_bar)
        return self._run_callback

    def dump_logs(self, iteration: int = 0) -> None:
        """See SB3; ``time/iterations`` counts all rollouts of the training."""
        if iteration == 0:
            super().dump_logs()
        elif self._n_rollouts % self._log_interval == 0:
            super().dump_logs(self._n_rollouts)

    def _begin_rollout(self, callback: BaseCallback) -> None:
        """Take note of where the training is, after going where it was broken off."""
        if self._run_state:
            state = unpack(self._run_state)
            self._run_state = b""
            self._go_on(state, callback)
        self._rollout_start = self._whereabouts()

    def _end_rollout(self) -> None:
        """Weights change from here on."""
        self._rollout_start = None
        self._n_rollouts += 1

    def forget_rollout(self) -> None:
        """Weights were set by somebody else: a rollout that was broken off cannot be played again."""
        self._rollout_start = None

    def packed_run_state(self) -> bytes:
        """
        :return: what belongs into a file; empty before the first rollout
        """
        if self._run_state:
            return self._run_state  # nothing has happened since it was loaded
        if self._rollout_start is None and any(part is None for part in (self._return_tracker, self._run_callback, self.env)):
            return b""
        state = self._rollout_start
        if state is None:
            try:
                state = self._whereabouts_between_rollouts()
            except (EOFError, OSError):
                if self._at_end is None:
                    return b""
                state = self._at_end
        present = self._changing()
        changed = {name: before for name, before in state["changing"].items() if not _same(before, present[name])}
        return pack({**state, "changing": changed, "hyperparameters": self._changed_hyperparameters(state)})

    def _is_undisturbed(self, env: VecEnv) -> bool:
        """Whether nobody else has moved environments since the last step of the training."""
        raise NotImplementedError

    def _whereabouts_between_rollouts(self) -> dict[str, Any]:
        """Where a training would go on: with new episodes, if somebody else has moved its environments since."""
        state = self._whereabouts()
        assert self.env is not None
        if state["episodes"] is not None and not self._is_undisturbed(self.env):
            state["episodes"]["env"]["missing"] = "somebody else has moved the environment"
            state["episodes"]["starts"][:] = True  # whoever goes on loses nothing that was still there
        return state

    def _whereabouts(self) -> dict[str, Any]:
        """Plain data that nobody changes any more. Taken at every rollout, so that it must cost next to nothing."""
        assert self.env is not None and self._return_tracker is not None and self._run_callback is not None
        assert self._unseen_ends is not None
        assert self.ep_info_buffer is not None and self.ep_success_buffer is not None
        logger = self.logger
        logged = [(name, value) for name, value in logger.name_to_value.items() if is_plain(value)]
        # Whoever reads a value that nobody has logged enters it in ``name_to_value`` alone
        counts, excluded = logger.name_to_count, logger.name_to_excluded
        infos = [{name: value for name, value in info.items() if is_plain(value)} for info in self.ep_info_buffer]
        state = {
            "n_envs": self.env.num_envs,
            "seed": self.seed,
            "num_timesteps": self.num_timesteps,
            "n_rollouts": self._n_rollouts,
            "infos": infos,
            "successes": [float(success) for success in self.ep_success_buffer],
            "logged": [(name, value, counts.get(name, 0), excluded.get(name)) for name, value in logged],
            "callbacks": callback_states(self._run_callback),
            "assignment": self.assignment.get_run_state(),
            "changing": _copied(self._changing()),
            "acting": self._acting,
            "episodes": None,
            "random": random_state(self.device),
            "hyperparameters": {name: getattr(self, name) for name in HYPERPARAMETERS if hasattr(self, name)},
        }
        if self._last_obs is not None:
            state["episodes"] = {
                "env": vec_env_state(self.env),
                "last_obs": copy.deepcopy(self._last_obs),
                "starts": np.array(self._last_episode_starts, dtype=bool),
                "returns": self._return_tracker.get_state(),
                "unseen_ends": self._unseen_ends.get_state(),
                "trajectories": None if self._recorder is None else self._recorder.get_state(),
            }
        return state

    def _changed_hyperparameters(self, state: dict[str, Any]) -> dict[str, Any]:
        """Those of a state that are others now, as plain data."""
        changed = {}
        for name, before in state["hyperparameters"].items():
            with contextlib.suppress(NotPlain):  # a function of the user's: what it was replaced by stays
                if before is not getattr(self, name):
                    changed[name] = encode(before)
        return changed

    def _changing(self) -> dict[str, Any]:
        """What a rollout changes of what files hold anyway: they may be written when it has done so."""
        changing = {
            "assignment": dict(self.assignment.state_dict()),
            "welfare": self.welfare.state,
            "returns": self._mean_returns,
        }
        if self.policy.critic_basis is not None:
            changing["policy"] = dict(self.policy.state_dict())
            changing["optimizer"] = self.policy.optimizer.state_dict()
        return changing

    def _go_on(self, state: dict[str, Any], callback: BaseCallback) -> None:
        """
        :param state: from :meth:`_whereabouts`, perhaps of another process
        :param callback: of the training that goes on
        """
        assert self.env is not None
        if state["n_envs"] != self.env.num_envs:
            # Other environments, other rollouts: what is known of episodes is as good there
            self.assignment.set_run_state(state["assignment"])
            return
        self.num_timesteps = self._num_timesteps_at_start = state["num_timesteps"]
        self._n_rollouts = state["n_rollouts"]
        self.ep_info_buffer = deque(state["infos"], maxlen=self._stats_window_size)
        self.ep_success_buffer = deque(state["successes"], maxlen=self._stats_window_size)
        for name, value, count, excluded in state["logged"]:
            self.logger.name_to_value[name] = value
            self.logger.name_to_count[name] = count
            self.logger.name_to_excluded[name] = excluded
        self._set_changing(state["changing"])
        for name in HYPERPARAMETERS:
            if name in state["hyperparameters"]:
                setattr(self, name, decode(state["hyperparameters"][name]))
        self.assignment.set_run_state(state["assignment"])
        self._acting = state["acting"]
        set_callback_states(callback, state["callbacks"])
        # Who loads a model with another seed wants other random numbers
        same_seed = state["seed"] == self.seed
        if state["episodes"] is not None:
            self._go_on_with_episodes(state["episodes"], same_seed)
        if same_seed:
            set_random_state(state["random"], self.device)

    def _go_on_with_episodes(self, episodes: dict[str, Any], same_seed: bool) -> None:
        assert self.env is not None and self._return_tracker is not None and self._unseen_ends is not None
        missing = set_vec_env_state(self.env, episodes["env"], random=same_seed)
        if missing is None:
            self._last_obs, self._last_episode_starts = episodes["last_obs"], episodes["starts"]
            self._return_tracker.set_state(episodes["returns"])
            self._unseen_ends.set_state(episodes["unseen_ends"])
            if self._recorder is not None and episodes["trajectories"] is not None:
                self._recorder.set_state(episodes["trajectories"])
            return
        self._last_obs = self.env.reset()  # type: ignore[assignment]
        self._last_episode_starts = np.ones(self.env.num_envs, dtype=bool)
        if not episodes["starts"].all():
            warnings.warn(f"Running episodes are lost, and new ones begin in their places: {missing}", stacklevel=5)

    def _set_changing(self, changing: dict[str, Any]) -> None:
        if "assignment" in changing:
            self.assignment.load_state_dict(changing["assignment"])
        if "welfare" in changing:
            self.welfare.state = changing["welfare"].cpu()
        if "returns" in changing:
            self._mean_returns[:] = changing["returns"].to(self._mean_returns)
        if "policy" in changing:
            self.policy.load_state_dict(changing["policy"])
            self.policy.optimizer.load_state_dict(changing["optimizer"])


def add_run_state(file: io.BytesIO, run_state: bytes) -> None:
    """
    :param file: a model's, complete but for this
    :param run_state: from :meth:`ResumableRun.packed_run_state`; nothing is added if it is empty
    """
    if run_state:
        with zipfile.ZipFile(file, "a") as archive:
            archive.writestr(RUN_STATE, run_state)


def read_run_state(file: io.BufferedIOBase) -> bytes:
    """
    :param file: a model's, of any version
    :return: packed; empty if there is none
    """
    file.seek(0)
    with zipfile.ZipFile(file) as archive:
        content = archive.read(RUN_STATE) if RUN_STATE in archive.namelist() else b""
    file.seek(0)
    return content


def _copied(tree: Any) -> Any:
    """The same, apart from tensors and arrays that somebody may write to."""
    if isinstance(tree, th.Tensor):
        return tree.detach().clone()
    if isinstance(tree, np.ndarray):
        return tree.copy()
    if isinstance(tree, dict):
        return {key: _copied(value) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)(_copied(value) for value in tree)
    return tree


def _same(one: Any, other: Any) -> bool:
    """Whether two trees hold the same, nan being equal to nan."""
    if isinstance(one, (th.Tensor, np.ndarray)):
        return np.array_equal(
            np.asarray(_cpu(one)), np.asarray(_cpu(other)), equal_nan=np.asarray(_cpu(one)).dtype.kind == "f"
        )
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(value, other[key]) for key, value in one.items())
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(_same(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


def _cpu(array: Any) -> Any:
    return array.detach().cpu() if isinstance(array, th.Tensor) else array
