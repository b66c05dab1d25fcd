"""
Arguments drawn at random: whatever is taken trains to finite weights, and whatever is not is named, with its value.

SB3_RMDP_EXAMPLES=2000 in the environment draws more of them.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch as th
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stable_baselines3.common.utils import LinearSchedule
from torch import nn

from sb3_rmdp import RepresentedPPO
from sb3_rmdp.common.arguments import plain, shown
from sb3_rmdp.common.assignment import ASSIGNMENTS, EMAssignment
from sb3_rmdp.common.welfare import WELFARES
from tests.probes import KnownAssignment, TwoGroups, vectorized

warnings.filterwarnings("ignore", message=".*NonInteractiveExampleWarning.*")

EXAMPLES = int(os.environ.get("SB3_RMDP_EXAMPLES", "50"))
TRIED = settings(
    max_examples=EXAMPLES, derandomize=EXAMPLES < 1000, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)

SMALL: dict[str, Any] = dict(policy="MlpPolicy", k=2, n_steps=8, batch_size=4, n_epochs=1, seed=0, device="cpu")

NAN, INF = float("nan"), float("inf")


def of_progress(value: Any) -> Callable[[float], Any]:
    return lambda _: value


NUMBERS = st.one_of(
    st.sampled_from([0, 1, 2, -1, 0.0, 1.0, 0.5, -0.5, 1e-3, NAN, INF, -INF, 10**30, -(10**30), 1e30, 1e300, 5e-324, 10**400]),
    st.floats(),
    st.floats(0.0, 1.0),
    st.integers(-3, 8),
    st.sampled_from([np.float32(0.25), np.int64(3), np.float64(NAN), np.array(0.5), th.tensor(0.5), np.bool_(True)]),
)
ODD = st.sampled_from(
    [None, True, False, "", "3", "nan", "x", b"1", [], [1], (1, 2), {}, {1: 2}, 1j, object(), int, np.zeros(3)]
)
ANY = st.one_of(NUMBERS, ODD)
SCHEDULES = st.one_of(ANY, ANY.map(of_progress), st.just(LinearSchedule(1e-3, 1e-4, 1.0)), st.just(len))
#: Small enough to be trained with, or far out of range
COUNTS = st.one_of(st.integers(-2, 12), ODD, st.sampled_from([2**31, 2**63, 10**30, 1.0, 2.5, NAN, np.int8(4), 10**400]))
KEYWORDS = st.dictionaries(st.sampled_from(["mixing", "gamma", "k", "seed", "net_arch", "lr", "x", ""]), ANY, max_size=2)

POLICY_KWARGS: dict[str, st.SearchStrategy[Any]] = {
    "net_arch": st.one_of(
        ANY,
        st.lists(st.one_of(st.integers(-1, 9), ODD), max_size=2),
        st.fixed_dictionaries({}, optional={key: st.lists(st.integers(0, 9), max_size=2) for key in ("pi", "vf", "vff")}),
    ),
    "activation_fn": st.one_of(ODD, st.sampled_from([nn.ReLU, nn.Tanh, nn.ELU, nn.Tanh(), nn.Linear])),
    "ortho_init": ANY,
    "log_std_init": ANY,
    "full_std": ANY,
    "use_expln": ANY,
    "squash_output": ANY,
    "features_extractor_class": ODD,
    "features_extractor_kwargs": st.one_of(ODD, KEYWORDS),
    "share_features_extractor": ANY,
    "normalize_images": ANY,
    "optimizer_class": st.one_of(ODD, st.sampled_from([th.optim.Adam, th.optim.SGD, th.optim.RMSprop, nn.Linear])),
    "optimizer_kwargs": st.one_of(
        ODD, st.fixed_dictionaries({}, optional={"eps": NUMBERS, "weight_decay": NUMBERS, "lr": NUMBERS})
    ),
    "use_sde": ANY,
    "net_arc": ANY,
}

ARGUMENTS: dict[str, st.SearchStrategy[Any]] = {
    "policy": st.one_of(ODD, st.sampled_from(["MlpPolicy", "CnnPolicy", "MultiInputPolicy", "mlppolicy", nn.Module])),
    "learning_rate": SCHEDULES,
    "n_steps": COUNTS,
    "batch_size": COUNTS,
    "n_epochs": COUNTS,
    "gamma": ANY,
    "gae_lambda": ANY,
    "clip_range": SCHEDULES,
    "clip_range_vf": SCHEDULES,
    "normalize_advantage": st.one_of(ANY, st.just("rollout")),
    "ent_coef": SCHEDULES,
    "vf_coef": ANY,
    "max_grad_norm": ANY,
    "use_sde": ANY,
    "sde_sample_freq": COUNTS,
    "rollout_buffer_class": ODD,
    "rollout_buffer_kwargs": st.one_of(ODD, KEYWORDS),
    "target_kl": ANY,
    "stats_window_size": COUNTS,
    "tensorboard_log": st.one_of(NUMBERS, st.sampled_from([None, [], {}, b"x", "a\0"])),
    "policy_kwargs": st.one_of(ODD, KEYWORDS, st.fixed_dictionaries({}, optional=POLICY_KWARGS)),
    "verbose": st.one_of(st.sampled_from([0, False, -1, 10**30, 2.5]), ODD.filter(lambda value: value is not True)),
    "seed": st.one_of(COUNTS, st.integers()),
    "device": st.one_of(
        ODD, st.sampled_from(["cpu", "auto", "gpu", "cuda:-1", "meta", "mps", "cpu:0", th.device("cpu"), 10**30])
    ),
    "k": st.one_of(COUNTS, NUMBERS),
    "critic_rank": st.one_of(COUNTS, NUMBERS),
    "normalize_observations": ANY,
    "assignment": st.one_of(ODD, st.sampled_from([*ASSIGNMENTS, "ems", EMAssignment, dict, "a:b", ":"])),
    "assignment_kwargs": st.one_of(ODD, KEYWORDS),
    "welfare": st.one_of(ODD, st.sampled_from([*WELFARES, "nasch", EMAssignment])),
    "welfare_kwargs": st.one_of(ODD, KEYWORDS),
}

#: One number per agent, or something like it
PER_AGENT = st.one_of(
    ANY, st.lists(st.one_of(NUMBERS, ODD), min_size=5, max_size=7), st.lists(st.floats(-1e3, 1e3), min_size=6, max_size=6)
)

ASSIGNMENT_KWARGS: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "em": {"mixing": ANY, "warm_start": COUNTS, "seed": ANY},
    "end_to_end": {"learning_rate": ANY, "centred": ANY, "init_std": ANY},
    "clustering": {"universal_fraction": ANY, "n_samples": COUNTS},
    "random": {"n_agents": ANY},
    "fixed": {"representatives": st.one_of(PER_AGENT, st.lists(st.integers(-1, 2), min_size=6, max_size=6))},
    "episodes": {
        **dict.fromkeys(("mixing", "move_cost", "exploration"), ANY),
        **dict.fromkeys(("warm_start", "archive_size", "patience", "stagnation", "restarts", "detours", "sideways"), COUNTS),
    },
}

OF_EVERY_WELFARE = {"outside_options": PER_AGENT, "minimum": PER_AGENT, "step": ANY, "mixing": ANY, "max_ratio": ANY}
WELFARE_KWARGS: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "utilitarian": {},
    "nash": {"shift": ANY, "alpha": ANY},
    "egalitarian": {"temperature": ANY},
    "alpha_fair": {"alpha": ANY, "shift": ANY},
    "gini": {"rank_weights": PER_AGENT},
}


def makes_sense(kwargs: dict[str, Any], tried: dict[str, Any], continuous: bool) -> None:
    """
    :param kwargs: arguments of a model
    :param tried: those that were drawn: an error must name one, with its value
    :param continuous: whether actions are
    """
    env = vectorized(TwoGroups if continuous else KnownAssignment, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model = RepresentedPPO(env=env, **kwargs)
            model.learn(2 * 2 * model.n_steps)
        except (ValueError, TypeError) as error:
            text = str(error)
            assert "\n" not in text and len(text) < 1200, text
            assert any(name in text and said_in(value, text) for name, value in tried.items()), (text, tried)
            return
    assert all(bool(parameter.isfinite().all()) for parameter in model.policy.parameters()), tried
    assert bool(model.assignment.alpha.isfinite().all()), tried


def said_in(value: Any, text: str) -> bool:
    """Whether an error has a value in it, or, of keywords, one of their names."""
    if isinstance(value, dict) and value:
        return (
            any(repr(key) in text or (str(key) in text and said_in(inner, text)) for key, inner in value.items())
            or shown(value) in text
        )
    if callable(value):
        return getattr(value, "__name__", type(value).__name__) in text
    # Numbers of numpy are shown as Python's, and 1 and 0 where flags are meant as what they mean
    same = [value, plain(value), *([bool(value)] if isinstance(value, int) and value in (0, 1) else [])]
    return any(shown(one) in text for one in same)


@st.composite
def some_of(draw: Any, strategies: dict[str, st.SearchStrategy[Any]], most: int = 3) -> dict[str, Any]:
    names = draw(st.lists(st.sampled_from(sorted(strategies)), min_size=1, max_size=most, unique=True))
    return {name: draw(strategies[name]) for name in names}


@TRIED
@given(some_of(ARGUMENTS), st.booleans())
def test_arguments_of_the_model(tried: dict[str, Any], continuous: bool) -> None:
    makes_sense(SMALL | tried, tried, continuous)


@TRIED
@given(
    st.sampled_from(sorted(ASSIGNMENT_KWARGS)).flatmap(
        lambda name: st.tuples(st.just(name), some_of(ASSIGNMENT_KWARGS[name], 4))
    )
)
def test_arguments_of_assignments(drawn: tuple[str, dict[str, Any]]) -> None:
    name, tried = drawn
    makes_sense(SMALL | dict(assignment=name, assignment_kwargs=tried), tried | {"assignment_kwargs": tried}, continuous=False)


@TRIED
@given(
    st.sampled_from(sorted(WELFARE_KWARGS)).flatmap(
        lambda name: st.tuples(st.just(name), some_of({**OF_EVERY_WELFARE, **WELFARE_KWARGS[name]}, 4))
    )
)
def test_arguments_of_welfares(drawn: tuple[str, dict[str, Any]]) -> None:
    name, tried = drawn
    makes_sense(
        SMALL | dict(welfare=name, welfare_kwargs=tried, assignment="em"), tried | {"welfare_kwargs": tried}, continuous=False
    )
