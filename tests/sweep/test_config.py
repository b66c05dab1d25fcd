"""Files of sweeps: what they multiply out to, and what is said of those that are wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sb3_rmdp import RepresentedPPO

pytest.importorskip("yaml")
import yaml

from sb3_rmdp.sweep.config import Run, Sweep, read_sweep
from sb3_rmdp.sweep.running import check_runs
from sb3_rmdp.zoo.hyperparams import as_arguments

GRID = "rmdp/ResourceGathering-v0"
HOPPER = "rmdp/HopperVelocity-v0"
LEAST: dict[str, Any] = dict(environments=[GRID], k=[2], transitions_per_policy=1000)


def sweep(folder: Path, text: str = "", **keys: Any) -> Sweep:
    """
    :param folder: for the file
    :param text: of the file; by default the least that there must be, with some keys
    :param keys: of the file
    """
    path = folder / "own.yml"
    path.write_text(text or yaml.safe_dump({**LEAST, **keys}))
    return read_sweep(path)


def points(runs: tuple[Run, ...]) -> list[tuple]:
    return [(run.env_id, run.k, run.n, run.algorithm, run.seed) for run in runs]


def test_the_least_that_there_must_be(tmp_path: Path) -> None:
    plan = sweep(tmp_path)
    assert points(plan.runs) == [(GRID, 2, None, "episodes", 0)]
    assert (plan.name, plan.results, plan.save_models) == ("own", tmp_path / "own.csv", False)
    assert plan.runs[0].checkpoints == (1000,) and plan.runs[0].n_eval_episodes == 20


def test_the_grid_is_multiplied_out_seed_by_seed(tmp_path: Path) -> None:
    text = f"""
    name: figure
    environments: [{HOPPER}, {{id: {HOPPER}, kwargs: {{population_seed: 1}}, label: other}}]
    k: [1, 2]
    n: [4, 5]
    algorithms: [em, random]
    once: [1]
    seeds: [7, 3]
    transitions_per_policy: 1_000_000
    checkpoints: [1e3, 5e5, 1_000_000]
    n_eval_episodes: 1e1
    results: ../results/figure.csv
    save_models: true
    """
    plan = sweep(tmp_path, text)
    expected = [
        (env, k, n, algorithm, seed)
        for seed in (7, 3)
        for env in (HOPPER, "other")
        for k, n in ((1, 4), (1, 5), (2, 4), (2, 5))
        for algorithm in (("em",) if k == 1 else ("em", "random"))
    ]
    assert [(run.label, *point[1:]) for run, point in zip(plan.runs, points(plan.runs), strict=True)] == expected
    assert plan.runs[0].env_kwargs == {"n_agents": 4}
    assert plan.runs[-1].env_kwargs == {"n_agents": 5, "population_seed": 1}
    assert {run.checkpoints for run in plan.runs} == {(1000, 500_000, 1_000_000)}
    assert {run.n_eval_episodes for run in plan.runs} == {10}
    assert plan.results == tmp_path.parent / "results" / "figure.csv" and plan.save_models and plan.name == "figure"


def test_pairs_of_k_and_n(tmp_path: Path) -> None:
    plan = sweep(tmp_path, k=None, environments=[HOPPER], grid=[{"k": 5, "n": 100}, {"k": 50, "n": 1000}, {"k": 3}], seeds=2)
    assert [(run.k, run.n, run.seed) for run in plan.runs] == [
        (k, n, seed) for seed in (0, 1) for k, n in ((5, 100), (50, 1000), (3, None))
    ]


def test_hyperparameters_are_the_tuned_ones_then_common_then_own(tmp_path: Path) -> None:
    algorithms = {"em": None, "slow em": {"assignment": "em", "learning_rate": "1e-5", "assignment_kwargs": {"decay": 0.5}}}
    plan = sweep(tmp_path, environments=[HOPPER], algorithms=algorithms, hyperparams={"n_steps": 64, "learning_rate": 0.1})
    tuned, slow = (run.hyperparams for run in plan.runs)
    assert tuned == {
        "assignment": "em",
        "batch_size": 64,
        "clip_range": 0.2,
        "ent_coef": "lin_2e-2_0",
        "gae_lambda": 0.95,
        "gamma": 0.999,
        "learning_rate": 0.1,
        "n_epochs": 10,
        "n_steps": 64,
        "normalize_advantage": "rollout",
        "policy": "MlpPolicy",
        "policy_kwargs": "dict(log_std_init=-1.0)",
    }
    assert slow == {**tuned, "learning_rate": "1e-5", "assignment_kwargs": {"decay": 0.5}}


def test_the_time_limit_of_trainings_is_not_that_of_evaluations(tmp_path: Path) -> None:
    cheetah = "rmdp/HalfCheetahVelocity-v0"
    algorithms: dict[str, Any] = {"tuned": {}, "long": {"max_episode_steps": 0}, "short": {"max_episode_steps": "3e1"}}
    for entry in algorithms.values():
        entry["assignment"] = "em"
    plan = sweep(tmp_path, environments=[cheetah, {"id": HOPPER, "kwargs": {"max_episode_steps": 20}}], algorithms=algorithms)
    limits = [{run.algorithm: run.training_kwargs.get("max_episode_steps") for run in plan.runs[i : i + 3]} for i in (0, 3)]
    assert limits == [{"tuned": 500, "long": None, "short": 30}, {"tuned": 20, "long": 20, "short": 20}]
    assert all("max_episode_steps" not in run.arguments for run in plan.runs)
    assert [run.env_kwargs for run in plan.runs] == [{}] * 3 + [{"max_episode_steps": 20}] * 3


def test_models_get_hyperparameters_as_rl_zoo_reads_them() -> None:
    written = {
        "ent_coef": "lin_5e-2_1e-3",
        "learning_rate": "3e-4",
        "n_steps": "1e2",
        "batch_size": 50,
        "policy": "MlpPolicy",
        "policy_kwargs": "dict(log_std_init=-1.0, activation_fn=nn.ReLU, net_arch=dict(pi=[64, 32], vf=[8]))",
    }
    model = RepresentedPPO(env=GRID, k=2, device="cpu", **as_arguments(written))
    assert [model.ent_coef(left) for left in (1.0, 0.5, 0.0)] == pytest.approx([5e-2, 2.55e-2, 1e-3])
    assert (model.learning_rate, model.n_steps) == (3e-4, 100) and isinstance(model.n_steps, int)
    kwargs = model.policy_kwargs
    assert kwargs["log_std_init"] == -1.0 and kwargs["net_arch"] == {"pi": [64, 32], "vf": [8]}
    assert kwargs["activation_fn"].__name__ == "ReLU"
    for text in ("dict(a=__import__('os').getpid())", "open('x')", "dict(", "nn.NoSuchLayer"):
        with pytest.raises(ValueError, match=r"policy_kwargs: .* cannot be read"):
            as_arguments({"policy_kwargs": text})


def test_ids_are_stable_and_know_everything_that_matters(tmp_path: Path) -> None:
    (run,) = sweep(tmp_path).runs
    # Of results that people have: it may not change
    plain = Run(GRID, {}, 2, "em", {"gamma": 1.0}, 0, (500, 1000), 20)
    assert plain.id == "fb1f7d7e3368eaee"
    same = [
        dict(name="another"),
        dict(results="x.csv"),
        dict(save_models=True),
        dict(environments=[{"id": GRID, "label": "x"}]),
        dict(hyperparams={"keep_best": 0}),
        dict(hyperparams={"keep_best": 20}, algorithms={"episodes": {"keep_best": 0}}),
        dict(hyperparams={"max_episode_steps": 0}),
        dict(hyperparams={"planned_transitions": 0}),
        dict(hyperparams={"planned_transitions": "1e3"}),
    ]
    for keys in same:
        assert sweep(tmp_path, **keys).runs[0].id == run.id
    other = [
        dict(k=[3]),
        dict(environments=[HOPPER]),
        dict(environments=[{"id": GRID, "kwargs": {"max_episode_steps": 39}}]),
        dict(algorithms=["random"]),
        dict(algorithms={"em": {"gamma": 0.5}}),
        dict(hyperparams={"gamma": 0.6}),
        dict(hyperparams={"keep_best": 20}),
        dict(hyperparams={"max_episode_steps": 20}),
        dict(hyperparams={"planned_transitions": 1001}),
        dict(seeds=[1]),
        dict(transitions_per_policy=1001),
        dict(checkpoints=[500, 1000]),
        dict(n_eval_episodes=21),
    ]
    ids = {sweep(tmp_path, **keys).runs[0].id for keys in other}
    assert len(ids | {run.id}) == len(other) + 1


def test_runs_by_what_they_are(tmp_path: Path) -> None:
    plan = sweep(tmp_path, environments=[HOPPER], k=[1, 2, 3], n=[3, 4], algorithms=["em", "random"], seeds=3)
    chosen = plan.only({"k": ["1", "3"], "seed": ["2"], "algorithm": ["random"], "env": ["HopperVelocity-v0"], "n": ["4"]})
    assert points(chosen) == [(HOPPER, k, 4, "random", 2) for k in (1, 3)]
    assert plan.only({}) == plan.runs
    with pytest.raises(ValueError, match=r"no run has k=4: choose among 1, 2, 3$"):
        plan.only({"k": ["4"]})
    once = sweep(tmp_path, environments=[GRID], k=[1, 2], algorithms=["em", "random"], once=[1])
    with pytest.raises(ValueError, match=r"no run has all of k=1, algorithm=random$"):
        once.only({"k": ["1"], "algorithm": ["random"]})


def test_names_may_have_commas(tmp_path: Path) -> None:
    rarely = {"assignment": "em", "n_steps": 512}
    plan = sweep(tmp_path, environments=[GRID], k=[3], algorithms={"em": None, "em, rarely": rarely, "rarely": rarely})

    def names(*texts: str) -> list[str]:
        return [run.algorithm for run in plan.only({"algorithm": texts})]

    assert names("em, rarely") == ["em, rarely"]
    assert names("rarely ,em") == ["em", "rarely"]
    assert names("em, rarely", "em") == ["em", "em, rarely"]
    with pytest.raises(ValueError, match="no run has algorithm=seldom: choose among em, em, rarely, rarely"):
        names("em, seldom")


def test_modules_that_are_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_module.py").write_text("def (:")
    monkeypatch.syspath_prepend(tmp_path)
    for keys in (dict(environments=["broken_module:Own-v0"]), dict(algorithms={"own": {"assignment": "broken_module:Own"}})):
        with pytest.raises(ValueError, match=r"own.yml: .*broken_module.* SyntaxError: "):
            sweep(tmp_path, **keys)


def test_settings_are_the_same_however_they_are_written(tmp_path: Path) -> None:
    def run(**hyperparams: Any) -> Run:
        return sweep(tmp_path, environments=[GRID], k=[3], hyperparams=hyperparams).runs[0]

    least = dict(envs_per_policy=1, keep_best=0, max_episode_steps=0, planned_transitions=0)
    assert run(**least).id == run().id
    some = dict(envs_per_policy=2, keep_best=20, max_episode_steps=10, planned_transitions=20_000)
    assert run(**some).id == run(**{name: f"{value:.1e}" for name, value in some.items()}).id != run().id


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("k: [2]\nseeds: 3\nk: [3]", "'k' is there twice"),
        ("algorithms: {em: {gamma: 0.9}, random: , em: {gamma: 0.5}}", "'em' is there twice"),
    ],
)
def test_nothing_is_there_twice(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "own.yml").write_text(text)
    with pytest.raises(ValueError, match=f"own.yml: {said}.* line ") as error:
        read_sweep(tmp_path / "own.yml")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (dict(algorithms=["em", "random", "em"]), "algorithms: ['em', 'random', 'em'] has a name twice"),
        (dict(seeds=[0, 2**32]), "seeds: 4294967296 is no whole number of at least 0 and at most 4294967295"),
        (dict(transitions_per_policy=10**400), "000 is no whole number of at least 1"),
        (dict(enviroments=[GRID]), "'enviroments' is no key of a sweep: did you mean 'environments'?"),
        (dict(environments=["rmdp/ResourceGatherin-v0"]), f"not registered: did you mean {GRID}"),
        (dict(environments=["no_such_module:Own-v0"]), "no_such_module"),
        (dict(environments=GRID), "is no list of environments"),
        (dict(environments=[{"id": GRID, "kwarg": {}}]), "'kwarg' is no key of an environment: did you mean 'kwargs'?"),
        (dict(environments=[{"kwargs": {}}]), "has no id"),
        (dict(environments=[GRID, GRID]), "is there twice"),
        (dict(environments=[{"id": GRID, "kwargs": {"n_agents": 2}}], n=[3]), "leave one out"),
        (dict(algorithms=["end_to_ends"]), "'end_to_ends' is no assignment: did you mean 'end_to_end'?"),
        (dict(hyperparams={"keep_best": -1}), "hyperparams: keep_best: -1 is no whole number of at least 0"),
        (dict(algorithms={"em": {"keep_best": True}}), "algorithm em: keep_best: True is no whole number of at least 0"),
        (dict(hyperparams={"max_episode_steps": -1}), "hyperparams: max_episode_steps: -1 is no whole number of at least 0"),
        (dict(hyperparams={"planned_transitions": 999}), "planned_transitions: 999 is less than transitions_per_policy, 1000"),
        (dict(algorithms={"own": {"assignment": "emm"}}), "'emm' is no assignment: did you mean 'em'?"),
        (dict(algorithms=["benchmarks.ablations:Own"]), "'benchmarks.ablations:Own' cannot be imported"),
        (
            dict(algorithms={"em": {"gama": 1.0}}),
            "'gama' is no argument of the model here (algorithm em): did you mean 'gamma'?",
        ),
        (dict(algorithms={"em": {"k": 3}}), "'k' is no argument of the model here"),
        (dict(algorithms="em"), "neither a list of assignments nor a mapping"),
        (dict(hyperparams={"n_step": 3}), "did you mean 'n_steps'?"),
        (dict(hyperparams={"assignment": "em"}), "'assignment' is no argument of the model here (hyperparams)"),
        (dict(hyperparams={"seed": 3}), "'seed' is no argument"),
        (dict(hyperparams={"envs_per_policy": 0}), "hyperparams: envs_per_policy: 0 is no whole number of at least 1"),
        (dict(algorithms={"em": {"envs_per_policy": "two"}}), "algorithm em: envs_per_policy: 'two' is no whole number"),
        (dict(k=[0]), "k: 0 is no whole number of at least 1"),
        (dict(k=[2.5]), "k: 2.5 is no whole number"),
        (dict(k=[True]), "k: True is no whole number"),
        (dict(k=[2, 2]), "k: [2, 2] has a number twice"),
        (dict(k=3), "k: 3 is no list"),
        (dict(k=None), "k is missing"),
        (dict(grid=[{"k": 2}]), "leave k and n out, or grid"),
        (dict(k=None, grid=[{"n": 2}]), "has no k"),
        (dict(k=None, grid=[{"k": 2, "m": 2}]), "'m' is no key of a pair"),
        (dict(once=[3]), "once: 3 is none of the numbers k"),
        (dict(seeds=0), "seeds: 0 is no whole number of at least 1"),
        (dict(seeds=[-1]), "seeds: -1 is no whole number of at least 0"),
        (dict(transitions_per_policy="a lot"), "transitions_per_policy: 'a lot' is no whole number"),
        (dict(transitions_per_policy=1.5), "transitions_per_policy: 1.5"),
        (dict(checkpoints=[500]), "must rise and end with transitions_per_policy, 1000"),
        (dict(checkpoints=[1000, 500]), "must rise"),
        (dict(save_models="yes please"), "neither true nor false"),
        (dict(name="a/b"), "leave slashes out"),
    ],
)
def test_wrong_files(keys: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError) as error:
        sweep(tmp_path, **keys)
    assert said in str(error.value) and "\n" not in str(error.value)
    assert str(error.value).startswith(f"{tmp_path / 'own.yml'}: ")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- 1", "a sweep is a mapping"),
        ("", "a sweep is a mapping"),
        ("k: [1", "line 1"),
        ("k: [1]", "environments is missing"),
        (f"{{environments: [{GRID}], k: [1]}}", "transitions_per_policy is missing"),
        (
            f"{{environments: [{{id: {GRID}, kwargs: {{a: 2020-01-01}}}}], k: [1], transitions_per_policy: 9}}",
            "something else than numbers, strings, lists and mappings",
        ),
    ],
)
def test_wrong_texts(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "own.yml").write_text(text)
    with pytest.raises(ValueError, match=r"own\.yml: ") as error:
        read_sweep(tmp_path / "own.yml")
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (dict(k=[3, 26]), f"{GRID} k=26 episodes seed=0: k=26 representatives for n_agents=25"),
        (dict(environments=[HOPPER], k=[5], n=[3]), "k=5 n=3 episodes seed=0: k=5 representatives for n_agents=3"),
        (dict(environments=[{"id": GRID, "kwargs": {"colour": 1}}]), f'{GRID} with {{"colour":1}} cannot be made: '),
        (dict(n=[10]), "cannot be made"),
        (dict(environments=["tests.sweep.probes:Thermometer-v0"]), "no attribute n_agents"),
        (dict(hyperparams={"n_steps": 0}), "n_steps=0"),
        (dict(hyperparams={"learning_rate": "cos_1"}), "'cos_1' is no schedule"),
        (dict(hyperparams={"policy": "MlpPolici"}), "MlpPolici"),
        (dict(hyperparams={"policy_kwargs": {"net_arc": [3]}}), "net_arc"),
        (dict(algorithms={"em": {"assignment_kwargs": {"decai": 1}}}), "decai"),
        (dict(algorithms=["fixed"]), "representatives"),
    ],
)
def test_what_cannot_be_trained_is_known_before(keys: dict[str, Any], said: str, tmp_path: Path) -> None:
    check_runs(sweep(tmp_path, environments=[GRID, HOPPER], algorithms=["em", "random"], seeds=2).runs)
    with pytest.raises(ValueError) as error:
        check_runs(sweep(tmp_path, **keys).runs)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_sweeps_of_this_repository_can_be_read() -> None:
    files = sorted((Path(__file__).parents[2] / "benchmarks" / "sweeps").glob("*.yml"))
    names = {read_sweep(file).name for file in files}
    assert len(names) == len(files) > 0


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (dict(seeds=1_000_000_000), "seeds: 1000000000 of them would make 1000000000 runs, and a sweep has at most 100000"),
        (dict(seeds=10**30), "seeds: 1000000000000000000000000000000 is no whole number of at least 1 and at most 4294967295"),
        (dict(seeds=60_000, algorithms=["em", "random"]), "would make 120000 runs"),
        (
            dict(hyperparams={"envs_per_policy": 10**9}),
            "envs_per_policy: 1000000000 is no whole number of at least 1 and at most 65536",
        ),
    ],
)
def test_sweeps_without_end_are_refused_at_once(keys: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError) as error:
        sweep(tmp_path, **keys)
    assert said in str(error.value)
