"""Where the environments of a vec env are within their episodes, and in their random numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecCheckNan,
    VecEnv,
    VecEnvWrapper,
    VecExtractDictObs,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
    VecTransposeImage,
    VecVideoRecorder,
)

from sb3_rmdp.envs.resource_gathering import ResourceGatheringEnv
from sb3_rmdp.envs.states import (
    REMEMBERED,
    NoStateError,
    attributes,
    env_state,
    set_attributes,
    set_env_state,
    tells_state,
    told_state,
)
from sb3_rmdp.vec_env.robots import ROBOTS

#: What wrappers of SB3 remember, by class
VEC_WRAPPERS: dict[type[VecEnvWrapper], tuple[str, ...]] = {
    VecCheckNan: (),
    VecExtractDictObs: (),
    VecMonitor: ("episode_returns", "episode_lengths", "episode_count"),
    VecTransposeImage: (),
    VecVideoRecorder: (),
}

#: Environments that tell their state in other processes, and wrappers that they may have there: known by their names only
OURS = tuple(env_class.__name__ for env_class in (ResourceGatheringEnv, *ROBOTS))
IN_WORKERS = {name.rpartition(".")[2]: names for name, names in REMEMBERED.items() if "stateful" not in name}


def vec_env_state(env: VecEnv) -> dict[str, Any]:
    """
    :param env: a vec env that was reset, with its wrappers
    :return: plain data that nobody changes any more: ``wrappers``, name and state each; ``random``, of each environment;
        ``episodes``, the state of each environment; and ``missing``, why there is none of the episodes, or ``None``
    """
    state: dict[str, Any] = {"wrappers": [], "random": random_states(env), "episodes": None, "missing": None}
    try:
        state["wrappers"] = [(type(wrapper).__qualname__, _wrapper_state(wrapper)) for wrapper in _wrappers(env)]
        state["episodes"] = _episodes(env.unwrapped)
    except NoStateError as error:
        state["missing"] = str(error)
    return state


def set_vec_env_state(env: VecEnv, state: dict[str, Any], random: bool = True) -> str | None:
    """
    Put environments where others were. If their episodes are not known, wrappers and random numbers are set all the same, and
    new episodes have to begin.

    :param env: a vec env that was reset
    :param state: from :func:`vec_env_state` of one that is made alike
    :param random: also set random numbers
    :return: why episodes do not go on; ``None`` if they do
    """
    missing: str | None = state["missing"]
    wrappers = list(_wrappers(env))
    names, saved = [type(wrapper).__qualname__ for wrapper in wrappers], [name for name, _ in state["wrappers"]]
    if names == saved:
        for wrapper, (_, own) in zip(wrappers, state["wrappers"], strict=True):
            _set_wrapper_state(wrapper, own)
    elif missing is None:
        missing = f"the vec env is wrapped by {names}, and was by {saved}: wrap it as it was"
    if random:
        set_random_states(env, state["random"])
    if missing is None and state["episodes"] is not None:
        try:
            _set_episodes(env.unwrapped, state["episodes"])
        except NoStateError as error:
            missing = str(error)
    return missing


def random_states(env: VecEnv) -> list[dict[str, Any]] | None:
    """
    :param env: a vec env
    :return: where each environment is in its random numbers; ``None`` if that is not known, or the next reset seeds them
    """
    # SB3's vec envs keep seeds for the next reset
    seeds = getattr(env.unwrapped, "_seeds", [])
    if any(seed is not None for seed in seeds) or not isinstance(env.unwrapped, (DummyVecEnv, SubprocVecEnv)):
        return None
    return [generator.bit_generator.state for generator in env.get_attr("np_random")]


def set_random_states(env: VecEnv, states: list[dict[str, Any]] | None) -> None:
    """
    :param env: a vec env that was reset, so that no seed is waiting
    :param states: from :func:`random_states`
    """
    if states is None or len(states) != env.num_envs or not isinstance(env.unwrapped, (DummyVecEnv, SubprocVecEnv)):
        return
    for i, (generator, state) in enumerate(zip(env.get_attr("np_random"), states, strict=True)):
        if generator.bit_generator.state["bit_generator"] == state["bit_generator"]:
            generator.bit_generator.state = state
            # In a process of its own there is another one
            env.env_method("set_wrapper_attr", "np_random", generator, indices=i)


def _wrappers(env: VecEnv) -> Iterator[VecEnvWrapper]:
    while isinstance(env, VecEnvWrapper):
        yield env
        env = env.venv


def _wrapper_state(wrapper: VecEnvWrapper) -> Any:
    if tells_state(wrapper):
        return told_state(wrapper)
    return [attributes(owner, names) for owner, names in _owners(wrapper)]


def _set_wrapper_state(wrapper: VecEnvWrapper, state: Any) -> None:
    if tells_state(wrapper):
        wrapper.set_state(state)
        return
    for (owner, names), values in zip(_owners(wrapper), state, strict=True):
        set_attributes(owner, names, values)


def _owners(wrapper: VecEnvWrapper) -> list[tuple[Any, tuple[str, ...]]]:
    """What a wrapper of SB3 remembers: names of attributes, and whose they are."""
    if type(wrapper) is VecNormalize:
        of_observations = getattr(wrapper, "obs_rms", {})
        moments = list(of_observations.values()) if isinstance(of_observations, dict) else [of_observations]
        return [(wrapper, ("returns", "old_reward")), *((of, ("mean", "var", "count")) for of in [*moments, wrapper.ret_rms])]
    if type(wrapper) is VecFrameStack:
        stacks = getattr(wrapper.stacked_obs, "sub_stacked_observations", {"": wrapper.stacked_obs})
        return [(stack, ("stacked_obs",)) for stack in stacks.values()]
    names = VEC_WRAPPERS.get(type(wrapper))
    if names is None:
        name = type(wrapper).__name__
        raise NoStateError(f"the wrapper {name} of the vec env has no get_state() and set_state(state): give it both")
    return [(wrapper, names)]


def _episodes(env: VecEnv) -> list[Any]:
    """States of all environments of a vec env without wrappers."""
    if isinstance(env, DummyVecEnv):
        return [env_state(single) for single in env.envs]
    if isinstance(env, SubprocVecEnv):
        remembered = {name: env.get_attr(name) for name in _names_in_workers(env)}
        states = env.env_method("get_state")
        return [(own, {name: values[i] for name, values in remembered.items()}) for i, own in enumerate(states)]
    raise NoStateError(f"{type(env).__name__} keeps the states of its environments to itself: use another vec env")


def _set_episodes(env: VecEnv, states: list[Any]) -> None:
    in_process = isinstance(env, DummyVecEnv)
    if len(states) != env.num_envs or in_process != isinstance(states[0], list):
        raise NoStateError(f"the vec env is a {type(env).__name__} of {env.num_envs}, and was another: make it as it was")
    if isinstance(env, DummyVecEnv):
        for single, state in zip(env.envs, states, strict=True):
            set_env_state(single, state)
    else:
        names = _names_in_workers(env)
        for i, (own, remembered) in enumerate(states):
            env.env_method("set_state", own, indices=i)
            for name in names:
                env.env_method("set_wrapper_attr", name, remembered[name], indices=i)


def _names_in_workers(env: VecEnv) -> list[str]:
    """
    What wrappers remember in other processes, where nothing can be seen of environments but what they answer.

    :param env: a SubprocVecEnv
    :return: names of attributes
    :raises NoStateError: if there is another environment than ours, in which a call might fail and end the process, or another
        wrapper
    """
    found: list[str] = []
    for text in set(map(str, env.env_method("__str__"))):
        *wrappers, base = re.findall(r"<(\w+)", text.partition("Env<")[0] + "Env")
        if base not in OURS or any(name not in IN_WORKERS for name in wrappers):
            raise NoStateError(f"{text} in another process does not tell its state: use DummyVecEnv")
        found += [name for wrapper in wrappers for name in IN_WORKERS[wrapper]]
    return sorted(set(found))
