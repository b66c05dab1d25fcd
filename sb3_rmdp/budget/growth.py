"""From a model of k representatives to one of more, in which nothing that was learned is lost."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch as th
from stable_baselines3.common.type_aliases import GymEnv

from sb3_rmdp import RepresentedPPO
from sb3_rmdp.common.assignment import (
    Assignment,
    ClusteringAssignment,
    EMAssignment,
    EndToEndAssignment,
    EpisodeAssignment,
    FixedAssignment,
    HardAssignment,
    RandomAssignment,
    assignment_class,
)
from sb3_rmdp.common.evaluation import as_vec_env
from sb3_rmdp.common.policies import RepresentedLinear
from sb3_rmdp.common.population import check_budget, check_same_population, population_of
from sb3_rmdp.vec_env import represented_vec_env

#: Parameters of the policy with a block for each representative, one behind the other
BLOCKS = ("action_net.weight", "action_net.bias", "log_std", "mlp_extractor.shift")

#: Arguments of the constructor that are kept under other names
KEPT_AS = {
    "policy": "policy_class",
    "assignment": "assignment_method",
    "welfare": "welfare_method",
    "stats_window_size": "_stats_window_size",
}

#: Arguments that a larger model does not take over, or not as they are
NOT_TAKEN_OVER = ("env", "k", "seed", "_init_setup_model")

#: What logits of copies are multiplied by: the likeliest action stays, and others get a chance again. Without it, copies
#: stayed what they were in KnownAssignment of the tests: with k = 3, all of four seeds ended at the optimum of k = 2, with
#: 0.5 and with 0.2 all at that of k = 3. To shrink what was learned before learning goes on is the idea of Ash and Adams, "On
#: Warm-Starting Neural Network Training", 2020.
SHRINKAGE = 0.5

#: Attribute of models that were started from others, saved with them: k and transitions of each of these, the first one first
ANCESTORS = "ancestors"

#: Difference of logits by which agents of a soft assignment prefer one of two representatives that act alike: ten to one
PREFERENCE = float(np.log(10.0))


def warm_start(model: RepresentedPPO, k: int, env: GymEnv | str | None = None, seed: int | None = None) -> RepresentedPPO:
    """
    A model of k representatives that starts from what one of fewer has learned.

    Representatives that there were act as they did and have the values that they had; trunks, critic and moments of
    observations are taken over, and so are all settings. Every new one begins as a copy of the one whose agents lack most, and
    takes over those that are worst off; see :func:`split_groups`. Its likeliest actions are those of the original, but it
    explores again: logits are halved, and standard deviations are at least what they were in the beginning. The optimizer
    begins afresh; schedules, and the count of transitions, do so with the next ``learn``.

    :param model: a model, trained or loaded
    :param k: number of representatives of the new one, larger than that of the model and at most its n_agents
    :param env: for the new model, as for the constructor of RepresentedPPO: an id becomes k copies; ``None`` for the vec env
        of the model as it is, in which representatives take turns
    :param seed: of the new model; that of the model by default
    :return: the new model, ready for ``learn``
    :raises ValueError: if k is out of range, the assignment is a given one, the environment has other agents or spaces, or
        the policy has parameters of representatives that are not known here
    """
    check_budget(k, model.n_agents)
    if k <= model.k:
        raise ValueError(f"k={k}: the model has {model.k} representatives already; choose k from {model.k + 1} on")
    check_can_grow(model.assignment_method)
    if env is None and model.get_env() is None:
        raise ValueError("there is no environment to go on in: pass env, e.g. an id, or load the model with one")
    vec_env = as_vec_env(represented_vec_env(model.get_env() if env is None else env, k, model.verbose))  # type: ignore[arg-type]
    check_same_population(model.population, population_of(vec_env))
    names = [name for name in inspect.signature(RepresentedPPO).parameters if name not in NOT_TAKEN_OVER]
    settings: dict[str, Any] = {name: getattr(model, KEPT_AS.get(name, name)) for name in names}
    new = type(model)(env=vec_env, k=k, seed=model.seed if seed is None else seed, **settings)

    for name in ("observation_space", "action_space"):
        had, has = getattr(model, name), getattr(new, name)
        if had != has:
            raise ValueError(f"the environment has the {name} {has}, the model was made for {had}: make it as in the training")

    growth = split_groups(_own_utilities(model, new), model.assignment.representatives, model.k, k)
    parents = th.as_tensor(growth.parents)
    new.policy.load_state_dict(_grown_policy(model.policy.state_dict(), new.policy.state_dict(), parents))
    _explore_again(new, model.k)
    _grow_assignment(model.assignment, new.assignment, growth)
    new.welfare.state = model.welfare.state.clone()
    if model._mean_returns.numel():
        new._mean_returns = th.cat([model._mean_returns, model._mean_returns[growth.parents]])
    new.trained_under_vec_normalize = model.trained_under_vec_normalize
    setattr(new, ANCESTORS, [*ancestors(model), [model.k, model.num_timesteps]])
    return new


def ancestors(model: RepresentedPPO) -> list[list[int]]:
    """
    :param model: a model
    :return: k and transitions, of all representatives, of each model that it goes back to by :func:`warm_start`, the first one
        first; none for a model that began by itself
    """
    return [list(map(int, ancestor)) for ancestor in getattr(model, ANCESTORS, [])]


def check_can_grow(assignment: str | type[Assignment]) -> None:
    """
    :param assignment: of a model
    :raises ValueError: if nobody would ever be served by a representative more
    """
    if issubclass(assignment_class(assignment), FixedAssignment):
        raise ValueError(
            "a model with assignment='fixed' cannot grow: it was given who serves whom, and nobody would go to a new "
            "representative; train a new model with representatives for the new k, or choose another assignment"
        )


class Growth(NamedTuple):
    """
    How groups of agents are split to make room for new representatives.

    :param parents: for every new representative, the old one that it is a copy of, (new k - old k,)
    :param served_by: representative of each agent afterwards, (n_agents,)
    """

    parents: list[int]
    served_by: np.ndarray


def split_groups(own_utilities: np.ndarray, served_by: np.ndarray, k_before: int, k: int) -> Growth:
    """
    Whom new representatives are made for: one after the other takes the worst-off agents of the group that lacks most.

    What a group lacks is the sum over its agents of what each has less than the best-off agent of all. Of groups that lack the
    same, the larger one is taken. It is cut where utilities fall into two parts that are most equal in themselves, i.e. by
    2-means on a line, and the lower part goes to the new representative. A group in which all have the same is cut in halves.

    :param own_utilities: what each agent has under its representative, (n_agents,); nan where it is not known
    :param served_by: representative of each agent, (n_agents,)
    :param k_before: number of representatives
    :param k: number of representatives that there shall be, from k_before to n_agents
    :return: copies of whom the new ones are, and who serves whom
    """
    best = np.nanmax(own_utilities) if np.isfinite(own_utilities).any() else 0.0
    # Who is not known lacks nothing
    lacking = best - np.where(np.isnan(own_utilities), best, own_utilities)
    served_by = served_by.copy()
    origins = list(range(k_before))
    for new in range(k_before, k):
        groups = [np.flatnonzero(served_by == j) for j in range(new)]
        # There are more agents than groups, so that one of them has two
        splittable = [j for j in range(new) if len(groups[j]) > 1]
        parent = max(splittable, key=lambda j: (lacking[groups[j]].sum(), len(groups[j])))
        members = groups[parent][np.argsort(-lacking[groups[parent]], kind="stable")]
        served_by[members[: _cut(-lacking[members])]] = new
        origins.append(origins[parent])
    return Growth(origins[k_before:], served_by)


def _cut(rising: np.ndarray) -> int:
    """Length of the lower of two parts whose sums of squared differences from their means are least together."""
    if rising[0] == rising[-1]:
        return len(rising) // 2
    lower = np.arange(1, len(rising))
    centred = rising - rising.mean()
    sums = np.cumsum(centred)[:-1]
    # What a cut takes away from the squares: those between the means of the parts, whose sums are opposite
    return int(lower[np.argmax(np.square(sums) / lower + np.square(sums) / (len(rising) - lower))])


def _own_utilities(model: RepresentedPPO, new: RepresentedPPO) -> np.ndarray:
    """What each agent had under its own representative when that was last seen, (n_agents,); nan where it never was."""
    if not model._mean_returns.numel():
        return np.full(model.n_agents, np.nan)
    # A loaded model may lack the weights of its agents, which come with the environment
    utilities = new.reward_weights.of_agents(model._mean_returns.t().to(new.device)).cpu().numpy()
    return utilities[np.arange(model.n_agents), model.assignment.representatives]


def _grown_policy(old: dict[str, th.Tensor], new: dict[str, th.Tensor], parents: th.Tensor) -> dict[str, th.Tensor]:
    """
    :param old: state of a policy
    :param new: state of a policy of more representatives, fresh
    :param parents: copies of whom the additional ones are
    :return: state for the new policy
    :raises ValueError: if the policy has parameters of representatives that are not known here
    """
    k_before = len(old["action_net.bias"])
    grown = {}
    for name, fresh in new.items():
        if name == "mlp_extractor.shift" and name not in old:
            # A single representative has none, which is as good as zero
            grown[name] = th.zeros_like(fresh)
        elif name in BLOCKS:
            blocks = old[name].view(k_before, -1, *old[name].shape[1:])
            grown[name] = th.cat([blocks, blocks[parents.to(blocks.device)]]).flatten(0, 1)
        else:
            grown[name] = old.get(name, fresh)
        if grown[name].shape != fresh.shape:
            raise ValueError(
                f"{name} of the policy has shape {tuple(grown[name].shape)} with k={k_before} and "
                f"{tuple(fresh.shape)} with k={k_before + len(parents)}: a policy of one's own can only grow if its actors "
                "are those of RepresentedActorCriticPolicy"
            )
    return grown


@th.no_grad()
def _explore_again(model: RepresentedPPO, first: int) -> None:
    """
    Copies of policies that have settled would stay what they are: let them try what they had given up.

    :param model: the larger model
    :param first: index of the first copy
    """
    policy = model.policy
    if hasattr(policy, "log_std"):
        blocks = policy.log_std.view(model.k, -1)
        blocks[first:] = blocks[first:].clamp(min=policy.log_std_init)
    else:
        assert isinstance(policy.action_net, RepresentedLinear)
        for parameter in (policy.action_net.weight, policy.action_net.bias):
            parameter[first:] *= SHRINKAGE


def _grow_assignment(old: Assignment, new: Assignment, growth: Growth) -> None:
    """
    Take over what an assignment knows.

    :param old: of the smaller model
    :param new: of the larger one, fresh
    :param growth: who serves whom now
    """
    if isinstance(old, (RandomAssignment, ClusteringAssignment)):
        return  # groups of another number are drawn, or found, anew
    if isinstance(old, EndToEndAssignment) and isinstance(new, EndToEndAssignment):
        with th.no_grad():
            new.logits.copy_(_split_logits(old.logits, old.representatives, growth))
    if isinstance(old, HardAssignment) and isinstance(new, HardAssignment):
        new.served_by.copy_(th.as_tensor(growth.served_by))
    if isinstance(old, EMAssignment) and isinstance(new, EMAssignment):
        # Copies would have earned about the same. Nobody chooses before averages differ: n_updates is 0
        new.q_table.copy_(_with_copies(old.q_table, growth.parents))
        new.q_weight.copy_(_with_copies(old.q_weight, growth.parents))
    if isinstance(old, EpisodeAssignment) and isinstance(new, EpisodeAssignment):
        # Fresh entries for the new ones. The archive is left behind, as it is in files
        state, fresh = old.get_extra_state(), new.get_extra_state()
        for name, value in state.items():
            state[name] = [*value, *fresh[name][old.k :]] if isinstance(value, list) and len(value) == old.k else value
        new.set_extra_state(state)


def _with_copies(table: th.Tensor, parents: Sequence[int]) -> th.Tensor:
    """Columns of a table, or entries of a vector, and copies of some of them behind."""
    return th.cat([table, table[..., list(parents)]], dim=-1)


def _split_logits(logits: th.Tensor, served_by: np.ndarray, growth: Growth) -> th.Tensor:
    """
    Copies have the logits of the representative that they were made of, but each agent prefers one of the family: whoever is
    moved the copy that it is moved to, all others the original. Nobody turns to another family thereby.

    :param logits: (n_agents, k)
    :param served_by: most probable representatives, (n_agents,)
    :param growth: who is moved
    :return: logits (n_agents, new k)
    """
    n_agents, k_before = logits.shape
    originals = np.concatenate([np.arange(k_before), growth.parents])
    preferred = np.tile(np.arange(k_before), (n_agents, 1))
    preferred[np.arange(n_agents), served_by] = growth.served_by
    second = preferred[:, originals] != np.arange(len(originals))
    return _with_copies(logits, growth.parents) - PREFERENCE * th.as_tensor(second).to(logits)
