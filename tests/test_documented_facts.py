"""What pages say that no example shows: defaults in tables, what may use what, and which errors there are."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from sb3_rmdp import RepresentedPPO, evaluate_welfare
from sb3_rmdp.common.assignment import ASSIGNMENTS
from sb3_rmdp.common.welfare import WELFARES, Welfare
from sb3_rmdp.envs import ResourceGatheringEnv
from sb3_rmdp.envs.velocity import VelocityTargets

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "sb3_rmdp"
ENV = "rmdp/ResourceGathering-v0"


def text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def section(page: str, title: str) -> str:
    """
    :param page: path of a page
    :param title: of one of its sections, without #
    :return: what stands between this title and the next one
    """
    (found,) = re.findall(rf"^#+ {re.escape(title)}\n(.*?)(?=^#+ |\Z)", text(page), flags=re.MULTILINE | re.DOTALL)
    return found


def documented_defaults(part: str) -> dict[str, Any]:
    """
    :param part: of a page, with a table of argument, default, meaning
    :return: defaults that are numbers or ``None``, or tuples of them
    """
    defaults = {}
    for name, default in re.findall(r"^\| `(\w+)` \| ([^|]+) \|", part, flags=re.MULTILINE):
        try:
            defaults[name] = ast.literal_eval(default.strip("` "))
        except (ValueError, SyntaxError):
            continue  # described in words
    return defaults


def defaults_of(function: Callable) -> dict[str, Any]:
    return {name: parameter.default for name, parameter in inspect.signature(function).parameters.items()}


@pytest.mark.parametrize("name", ["em", "episodes", "end_to_end", "clustering"])
def test_tables_of_assignments_have_all_arguments_with_their_defaults(name: str) -> None:
    defaults = defaults_of(ASSIGNMENTS[name])
    own = {key: value for key, value in defaults.items() if key not in ("n_agents", "k", "seed")}
    assert documented_defaults(section("docs/assignments.md", name)) == own


def test_the_table_of_welfares_has_the_common_arguments_with_their_defaults() -> None:
    documented = documented_defaults(section("docs/fairness.md", "Arguments").split("and some of them")[0])
    defaults = defaults_of(Welfare)
    assert documented == {name: defaults[name] for name in documented}
    assert set(documented) == {"outside_options", "minimum", "step", "mixing", "max_ratio"}


def test_every_welfare_and_every_assignment_is_in_its_table() -> None:
    assert {f'"{name}"' for name in WELFARES} <= set(re.findall(r'^\| `("\w+")` \|', text("docs/fairness.md"), re.MULTILINE))
    named = set(re.findall(r'^\| `("\w+")` \|', text("docs/assignments.md"), re.MULTILINE))
    assert {f'"{name}"' for name in ASSIGNMENTS} == named


@pytest.mark.parametrize(
    ("title", "made"), [("rmdp/ResourceGathering-v0", ResourceGatheringEnv), ("Velocity tasks", VelocityTargets)]
)
def test_tables_of_environments_have_defaults_that_are_true(title: str, made: type) -> None:
    documented, defaults = documented_defaults(section("docs/environments.md", title)), defaults_of(made.__init__)
    if made is VelocityTargets:  # as many as there are targets, or else this
        defaults["n_agents"] = gym.make("rmdp/HopperVelocity-v0").get_wrapper_attr("n_agents")
    assert documented == {name: defaults[name] for name in documented} and len(documented) >= 4


def test_every_page_is_in_the_index() -> None:
    pages = {str(page.relative_to(ROOT / "docs"))[:-3] for page in (ROOT / "docs").rglob("*.md")} - {"index"}
    index = text("docs/index.md")
    listed = {line for block in re.findall(r"```{toctree}\n(.*?)```", index, re.DOTALL) for line in block.splitlines()}
    assert pages - listed == set()
    assert pages - {link[:-3] for link in re.findall(r"\((\S+\.md)\)", index)} == set()


#: Parts of the package that a part must not import, as CONTRIBUTING.md has it
UPPER = {"approval", "budget", "cli", "commands", "export", "plots", "service", "sweep", "zoo"}
SERVICES = {"approval", "budget", "export", "service"}
FORBIDDEN = {
    "envs": UPPER | {"represented_ppo", "vec_env"},
    "oracles": UPPER | {"represented_ppo", "vec_env", "envs", "common"},
    "vec_env": UPPER | {"represented_ppo"},
    "common": UPPER | {"represented_ppo"},
    "represented_ppo": UPPER,
    "plots": (UPPER - {"plots"}) | {"represented_ppo"},
    "zoo": UPPER - {"zoo", "plots", "commands"},
    **{part: SERVICES - {part} | {"cli", "sweep"} for part in SERVICES},
    "sweep": SERVICES | {"cli"},
    "commands": SERVICES | {"cli", "sweep"},
}


def imports(path: Path) -> set[str]:
    """
    :param path: a module
    :return: parts of the package that it imports as it is imported itself: neither late, nor for types alone
    """
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sb3_rmdp."):
            found.add(node.module.split(".")[1])  # type: ignore[union-attr]
        elif isinstance(node, ast.Import):
            found |= {name.name.split(".")[1] for name in node.names if name.name.startswith("sb3_rmdp.")}
    return found


@pytest.mark.parametrize("part", sorted(FORBIDDEN))
def test_parts_use_what_they_may(part: str) -> None:
    folder = PACKAGE / part
    modules = sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]
    assert modules[0].exists()
    wrong = {str(path.relative_to(ROOT)): imports(path) & FORBIDDEN[part] for path in modules}
    assert {path: parts for path, parts in wrong.items() if parts} == {}


def test_assignments_never_import_an_environment_a_policy_or_a_buffer() -> None:
    unknown = re.compile(
        r"^\s*(from|import) (gymnasium|stable_baselines3|sb3_rmdp\.(envs|vec_env|common\.(policies|buffers)))\b", re.M
    )
    for path in (PACKAGE / "common" / "assignment").glob("*.py"):
        assert unknown.findall(path.read_text(encoding="utf-8")) == [], path


class Broken(gym.Wrapper):
    """Does one thing wrong at every step."""

    n_agents = 25

    def __init__(self, change: Callable[[np.ndarray, dict], None]) -> None:
        super().__init__(gym.make(ENV))
        self.change = change

    def step(self, action: Any) -> Any:
        observation, reward, terminated, truncated, info = self.env.step(0)  # up: an episode lasts for a while
        observation, info = observation.copy(), {**info, "reward_vector": info["reward_vector"].copy()}
        self.change(observation, info)
        return observation, reward, terminated, truncated, info


def model(env: Any = ENV, **kwargs: Any) -> RepresentedPPO:
    return RepresentedPPO("MlpPolicy", env, **{"k": 3, "n_steps": 64, "device": "cpu", **kwargs})


def broken(change: Callable[[np.ndarray, dict], Any]) -> RepresentedPPO:
    return model(Broken(change), n_steps=32, batch_size=32).learn(32)


def changed_by_hand() -> RepresentedPPO:
    env = gym.make(ENV)
    env.unwrapped.wind = 3  # type: ignore[attr-defined]
    return model(env)


SEEN = {
    "k, the number of representatives, is missing": lambda: RepresentedPPO("MlpPolicy", ENV),
    "k=30 representatives for n_agents=25": lambda: model(k=30),
    "assignment=... is unknown": lambda: model(assignment="foo"),
    "assignment_kwargs has [...], which ... does not know": lambda: model(assignment_kwargs=dict(foo=1)),
    "assignment='fixed' needs to know who serves whom": lambda: model(assignment="fixed"),
    "the environment has no attribute n_agents": lambda: model("CartPole-v1"),
    "env 0 gave no reward vector": lambda: broken(lambda _, info: info.pop("reward_vector")),
    "one of shape ...": lambda: broken(lambda _, info: info.update(reward_vector=np.zeros(3, np.float32))),
    "env 0 gave agent 3 the reward nan": lambda: broken(lambda _, info: info["reward_vector"].__setitem__(3, np.nan)),
    "env 0 observed inf at entry 3 of the observation": lambda: broken(
        lambda observation, _: observation.__setitem__(3, np.inf)
    ),
    "advantages are not finite, or too large for their squares": lambda: broken(
        lambda _, info: info["reward_vector"].fill(1e30)
    ),
    "observation[3] is nan": lambda: model().predict(np.full(27, np.nan, np.float32), representative=0),
    "the environment has n_agents=...": lambda: evaluate_welfare(
        model(), gym.make(ENV, shape=(4, 4), home=(3, 2)), n_eval_episodes=1
    ),
    "VecNormalize(norm_reward=True) scales the scalar reward": lambda: model(VecNormalize(make_vec_env(ENV, n_envs=3))),
    "net_arch=... leaves the critic without a hidden layer": lambda: model(policy_kwargs=dict(net_arch=dict(pi=[], vf=[]))),
    "representative 3: with k=3 representatives are numbered 0 to 2": lambda: model().representative(3),
    "representatives take turns in the environment itself: copies ... would not be like it": changed_by_hand,
    "The number of environments to be set is different": lambda: model().set_env(make_vec_env(ENV, n_envs=5)),
    "You have specified a mini-batch size of ...": lambda: model(n_steps=65),
}


@pytest.mark.parametrize("message", sorted(SEEN))
def test_errors_are_those_of_the_page_of_questions(message: str) -> None:
    """The words of a row are those that a user sees, but for numbers and for what stands in the place of ..."""
    table = text("docs/faq.md").split("## VecNormalize")[0]
    assert message in re.findall(r"`([^`]+)`", table)
    with pytest.raises((ValueError, AssertionError, UserWarning), match=pattern(message)):
        SEEN[message]()


def pattern(message: str) -> str:
    """
    :param message: of the page, with ... for what varies, and examples of numbers
    :return: a regular expression of all messages like it
    """
    escaped = re.escape(message).replace(re.escape("..."), ".*")
    return re.sub(r"\b(\d+|nan|inf)\b", r"(\\d+|nan|inf)", escaped)
