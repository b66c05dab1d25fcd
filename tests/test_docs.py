"""
The documentation runs: every python block of every page, and its table of metrics is complete.

Blocks of one page share a namespace, as if they were typed one after the other, in an empty folder. Budgets that are worth
their while for a reader are cut down first: ``total_timesteps=...``, and any integer written with underscores, become at most
:data:`BUDGET`. A page must therefore not depend on what a training has learned.
"""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest
from stable_baselines3.common.callbacks import BaseCallback

import sb3_rmdp
from sb3_rmdp import RepresentedPPO
from tests.probes import Drift, KnownAssignment, Probe, time_limited, vectorized

ROOT = Path(__file__).parents[1]
BUDGET = 2048

#: Pages without python blocks, such as an empty README.md, have nothing to run
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]


def blocks(page: Path) -> list[tuple[int, str]]:
    """
    :param page: a markdown file
    :return: line number and code of its python blocks
    """
    text = page.read_text(encoding="utf-8")
    found = re.finditer(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [(text.count("\n", 0, match.start(1)), match.group(1)) for match in found]


def cut(code: str) -> str:
    """
    :param code: a python block
    :return: the same with small budgets
    """

    def smaller(match: re.Match) -> str:
        return match.group(1) + str(min(int(match.group(2)), BUDGET))

    code = re.sub(r"(\btotal_timesteps\s*=\s*)(\d[\d_]*)\b", smaller, code)
    return re.sub(r"(?<![\w.])()(\d{1,3}(?:_\d{3})+)\b", smaller, code)


def test_budgets_are_cut() -> None:
    assert cut("learn(total_timesteps=600_000, seed=70000)") == "learn(total_timesteps=2048, seed=70000)"
    assert cut("learn(1_000_000); total_timesteps = 512; x_1_000, 1.5") == "learn(2048); total_timesteps = 512; x_1_000, 1.5"


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: str(page.relative_to(ROOT)))
# Where there is a GPU, SB3 advises against it for small networks; its progress bar is one that tqdm calls experimental
@pytest.mark.filterwarnings("ignore:You are trying to run:UserWarning", "ignore:rich is experimental")
def test_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # Classes of a module that cannot be imported are pickled by value, as those of a script are
    namespace = {"__name__": "__main__"}
    for line, code in blocks(page):
        # Blank lines in front make tracebacks point to the line of the page
        exec(compile("\n" * line + cut(code), str(page), "exec"), namespace)


MODULES = [module.name for module in pkgutil.walk_packages(sb3_rmdp.__path__, "sb3_rmdp.")]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


class Logged(BaseCallback):
    """Collects the keys that are logged."""

    def __init__(self) -> None:
        super().__init__()
        self.keys: set[str] = set()

    def _on_step(self) -> bool:
        self.keys |= set(self.logger.name_to_value)
        return True


class Successful(Drift):
    """A probe that tells whether an episode was a success."""

    def step(self, action):  # type: ignore[no-untyped-def]
        *transition, info = super().step(action)
        return (*transition, {**info, "is_success": True})


@pytest.mark.parametrize(
    ("probe", "kwargs"),
    [
        (Successful, dict(clip_range_vf=0.2, assignment="episodes", welfare="nash", welfare_kwargs=dict(minimum=1.0))),
        (KnownAssignment, {}),
    ],
)
def test_every_metric_is_documented(probe: type[Probe], kwargs: dict) -> None:
    documented = set(re.findall(r"^\| `(\w+/\w+)` \|", (ROOT / "docs" / "metrics.md").read_text("utf-8"), flags=re.MULTILINE))
    logged = Logged()
    env = vectorized(lambda: time_limited(probe()), 2)
    model = RepresentedPPO("MlpPolicy", env, k=2, n_steps=16, batch_size=16, n_epochs=1, device="cpu", **kwargs)
    # Without dumps, which clear what was logged, the logger keeps all that a training has recorded
    model.learn(96, callback=logged, log_interval=1000)
    model.dump_logs(iteration=1)
    assert logged.keys - documented == set()
    if probe is Successful:
        times = {"time/fps", "time/iterations", "time/time_elapsed", "time/total_timesteps"}
        episodes = {"rollout/ep_rew_mean", "rollout/ep_len_mean", "rollout/success_rate"}  # known at the dump only
        assert documented - logged.keys - times - episodes == set()
