"""Let every representative act, and keep what comes of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.vec_env import VecEnv, VecNormalize, unwrap_vec_normalize

from sb3_rmdp.common.agent_weights import AgentWeights
from sb3_rmdp.common.evaluation import as_vec_env
from sb3_rmdp.common.exploration import new_noise_per_episode
from sb3_rmdp.common.on_policy_algorithm import RepresentedOnPolicyAlgorithm
from sb3_rmdp.common.population import (
    agent_weights_of,
    check_no_reward_normalization,
    check_same_population,
    population_of,
    reward_key,
    reward_vectors,
)
from sb3_rmdp.common.random_numbers import apart_from_training
from sb3_rmdp.common.seeds import seed_evaluation
from sb3_rmdp.envs.registered import check_registered
from sb3_rmdp.service.episodes import PLAIN, EvaluationEpisodes, Origin, Trajectories, policy_fingerprint
from sb3_rmdp.vec_env import make_represented_vec_env
from sb3_rmdp.vec_env.episodes import EpisodeLengths

#: Memory that trajectories may take by default: 2 GiB, fifteen times what 20 x 50 episodes of HalfCheetah need
MAX_BYTES = 2**31

#: What cannot be turned back into observations of the environment
STACKED = (
    "terminal observations are not shaped as others are: put VecNormalize above wrappers that stack observations, or record "
    "with trajectories=False"
)

Observations = dict[str, np.ndarray]


@apart_from_training
def record_episodes(
    model: RepresentedOnPolicyAlgorithm,
    env: GymEnv | str,
    n_episodes: int = 50,
    deterministic: bool = True,
    seed: int | None = 0,
    trajectories: bool = True,
    max_bytes: int = MAX_BYTES,
    max_episode_steps: int | None = None,
) -> EvaluationEpisodes:
    """
    Let every representative act for a number of episodes, for users to come.

    As in :func:`evaluate_welfare`, which episodes count is settled before they begin, so that short ones are not favoured, and
    statistics of a VecNormalize are not updated. Observations are kept as the environment gave them, not as VecNormalize made
    them; floating-point numbers in single precision.

    :param model: the model
    :param env: an environment, a vec env of any size, or a gymnasium id, with the agents of the model
    :param n_episodes: episodes per representative, at least 2
    :param deterministic: take the modes of the policies instead of samples; record what will be in service
    :param seed: of the recording, see :func:`~sb3_rmdp.common.seeds.seed_evaluation`; ``None`` to seed nothing
    :param trajectories: keep observations, actions and numbers in infos, which reward functions are called with. Returns
        alone do for users who come with weights or scores
    :param max_bytes: memory that trajectories may take; those of running episodes included; beyond it they are dropped
        with a warning, and returns are kept
    :param max_episode_steps: steps that an episode may take, as for :func:`evaluate_welfare`
    :return: the episodes
    :raises ValueError: if a number is out of its range, the environment has other agents, observations are known to the
        model under another VecNormalize, or an episode does not end
    """
    if n_episodes < 2:
        raise ValueError(f"n_episodes={n_episodes}: the error of a return is known from 2 episodes per representative on")
    if isinstance(env, str):
        check_registered(env)
        env = make_represented_vec_env(env, model.k)
    vec_env = as_vec_env(env)
    check_no_reward_normalization(vec_env)
    check_same_population(model.population, population_of(vec_env))
    model.check_vec_normalize(vec_env)
    if seed is not None:
        seed_evaluation(vec_env, seed)

    normalizer = unwrap_vec_normalize(vec_env)
    training = None if normalizer is None else normalizer.training
    # Of this environment: a loaded model may know none
    weights = agent_weights_of(vec_env, model.n_agents)
    lengths = EpisodeLengths(vec_env, max_episode_steps)
    recording = _Recording(model.k, n_episodes, weights.size, trajectories, max_bytes)
    try:
        if normalizer is not None:
            normalizer.training = False
        with new_noise_per_episode(model, vec_env.num_envs, deterministic) as draw_noise:
            originals = _originals(normalizer) if trajectories else None
            _run(model, vec_env, weights, recording, lengths, deterministic, originals, draw_noise)
    finally:
        if normalizer is not None and training is not None:
            normalizer.training = training
    population, mean_square = model.population, weights.mean_square()
    return EvaluationEpisodes(
        returns=recording.returns.astype(np.float32),
        lengths=recording.lengths,
        origin=Origin(policy_fingerprint(model), *population, _env_id(vec_env), deterministic, seed),
        mean_square=None if mean_square is None else mean_square.numpy().astype(np.float64),
        trajectories=recording.trajectories(),
    )


def _env_id(env: VecEnv) -> str | None:
    spec = env.get_attr("spec", indices=[0])[0] if env.has_attr("spec") else None
    return None if spec is None else str(spec.id)


def _originals(normalizer: VecNormalize | None) -> Callable[[Any, bool], Observations]:
    """
    :param normalizer: a VecNormalize above the environment
    :return: a function of what a model sees, and of whether it is a terminal observation, to what the environment gave, by key
    """

    def originals(seen: Any, terminal: bool) -> Observations:
        if normalizer is not None:
            try:
                seen = normalizer.unnormalize_obs(seen) if terminal else normalizer.get_original_obs()
            except ValueError as error:  # of shapes
                raise ValueError(STACKED) from error
        items = seen.items() if isinstance(seen, Mapping) else [(PLAIN, seen)]
        return {key: np.asarray(array) for key, array in items}

    return originals


def _run(
    model: RepresentedOnPolicyAlgorithm,
    env: VecEnv,
    weights: AgentWeights,
    recording: _Recording,
    lengths: EpisodeLengths,
    deterministic: bool,
    originals: Callable[[Any, bool], Observations] | None,
    draw_noise: Callable[[np.ndarray], None],
) -> None:
    """
    :param model: the model
    :param env: where it acts
    :param weights: of the agents
    :param recording: where episodes go
    :param lengths: of the episodes that are running
    :param deterministic: take modes
    :param originals: observations as the environment gave them; ``None`` if no trajectories are wanted
    :param draw_noise: called after every step with whether episodes are over
    """
    k, n_envs, n_episodes = model.k, env.num_envs, recording.lengths.size
    key = reward_key(weights)
    # Episode number m belongs to representative m mod k; an env that is through with one takes the next number
    episodes = np.arange(n_envs)
    started = n_envs
    running = np.zeros((n_envs, weights.size))
    pieces = [_Piece() for _ in range(n_envs)]
    obs = env.reset()
    while (episodes < n_episodes).any():
        actions, _ = model.predict(obs, deterministic=deterministic, representative=episodes % k)  # type: ignore[arg-type]
        before = originals(obs, False) if originals and recording.wanted else None
        obs, _, dones, infos = env.step(actions)
        draw_noise(dones)
        running += reward_vectors(infos, weights.size, key)
        steps = lengths.add(dones)
        if before is not None:
            for idx in np.flatnonzero(episodes < n_episodes):
                pieces[idx].add({name: array[idx] for name, array in before.items()}, actions[idx], infos[idx])
        for idx in np.flatnonzero(dones):
            if episodes[idx] < n_episodes:
                representative, episode = int(episodes[idx] % k), int(episodes[idx] // k)
                recording.add(representative, episode, running[idx], int(steps[idx]))
                if before is not None and originals is not None:
                    pieces[idx].end(originals(_terminal(infos[idx]), True))
                    recording.keep(representative, episode, pieces[idx])
            pieces[idx] = _Piece()
            running[idx] = 0.0
            episodes[idx] = started
            started += 1
        if before is not None and not recording.has_room(pieces):
            pieces = [_Piece() for _ in range(n_envs)]


def _terminal(info: Mapping[str, Any]) -> Any:
    """
    :param info: of the last step of an episode
    :return: its terminal observation
    :raises ValueError: if there is none
    """
    if info.get("terminal_observation") is None:
        raise ValueError(
            'the vec env puts no info["terminal_observation"] at the end of an episode, as those of SB3 do, so that the last '
            "transition is not known: record with trajectories=False"
        )
    return info["terminal_observation"]


class _Piece:
    """What was seen and done in an episode so far."""

    def __init__(self) -> None:
        self.observations: list[Observations] = []
        self.actions: list[Any] = []
        self.infos: list[dict[str, float]] = []
        #: Memory that the arrays take; what Python adds is not counted
        self.nbytes = 0

    def add(self, observation: Observations, action: Any, info: Mapping[str, Any]) -> None:
        """One more step; arrays are copied, since vec envs may write into them again."""
        self.observations.append({key: _single(array) for key, array in observation.items()})
        self.actions.append(_single(action))
        self.infos.append({key: float(value) for key, value in info.items() if _is_number(value)})
        seen = sum(array.nbytes for array in self.observations[-1].values())
        self.nbytes += seen + self.actions[-1].nbytes + 8 * len(self.infos[-1])

    def end(self, terminal: Observations) -> None:
        """
        :param terminal: the last observation
        :raises ValueError: if it is not shaped like the others
        """
        for key, first in self.observations[0].items():
            if key not in terminal or terminal[key].shape != first.shape:
                raise ValueError(STACKED)
        self.observations.append({key: _single(terminal[key]) for key in self.observations[0]})

    def stacked(self) -> Trajectories:
        """All of it; of infos, the numbers that every step told."""
        told = set.intersection(*(set(info) for info in self.infos))
        return Trajectories(
            {key: np.stack([seen[key] for seen in self.observations]) for key in self.observations[0]},
            np.stack(self.actions),
            {key: np.array([info[key] for info in self.infos]) for key in sorted(told)},
        )


def _single(array: Any) -> np.ndarray:
    """A copy, whose floating-point numbers are in single precision."""
    copy = np.array(array)
    return copy.astype(np.float32) if np.issubdtype(copy.dtype, np.floating) else copy


def _is_number(value: Any) -> bool:
    return isinstance(value, (bool, int, float, np.number, np.bool_)) and not isinstance(value, np.complexfloating)


class _Recording:
    """
    Episodes as they come in.

    :param k: number of representatives
    :param n_episodes: episodes of each
    :param size: length of a reward vector
    :param wanted: whether trajectories are kept
    :param max_bytes: memory that they may take
    """

    def __init__(self, k: int, n_episodes: int, size: int, wanted: bool, max_bytes: int):
        self.returns = np.zeros((k, n_episodes, size))
        self.lengths = np.zeros((k, n_episodes), dtype=np.int64)
        self.wanted = wanted
        self._max_bytes = max_bytes
        self._bytes = 0
        self._kept: dict[tuple[int, int], Trajectories] = {}

    def add(self, representative: int, episode: int, returns: np.ndarray, length: int) -> None:
        """What an episode paid, (size,), and how long it was."""
        self.returns[representative, episode], self.lengths[representative, episode] = returns, length

    def keep(self, representative: int, episode: int, piece: _Piece) -> None:
        """The trajectory of an episode, as long as there is memory for all of them."""
        stacked = piece.stacked()
        arrays = [*stacked.observations.values(), stacked.actions, *stacked.infos.values()]
        self._bytes += sum(array.nbytes for array in arrays)
        self._kept[representative, episode] = stacked

    def has_room(self, running: list[_Piece]) -> bool:
        """
        Drop all trajectories, with a warning, once they take too much memory.

        :param running: what there is of episodes that have not ended
        :return: whether they are still wanted
        """
        if self._bytes + sum(piece.nbytes for piece in running) > self._max_bytes:
            self._kept, self.wanted = {}, False
            warnings.warn(
                f"trajectories take more than {self._max_bytes} bytes and are dropped; returns are kept, which do for users "
                "who come with weights or scores. Record fewer episodes, or pass a larger max_bytes",
                stacklevel=4,
            )
        return self.wanted

    def trajectories(self) -> Trajectories | None:
        """All of them, by representative and episode; ``None`` if they are not kept."""
        if not self.wanted:
            return None
        kept = [self._kept.pop(key) for key in sorted(self._kept)]
        told = sorted(set.intersection(*(set(one.infos) for one in kept)))
        return Trajectories(
            {key: np.concatenate([one.observations[key] for one in kept]) for key in kept[0].observations},
            np.concatenate([one.actions for one in kept]),
            {key: np.concatenate([one.infos[key] for one in kept]) for key in told},
        )
