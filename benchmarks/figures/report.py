"""All figures of a folder of results, and the page of tables that goes with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.figures import tables
from benchmarks.figures.cost import costs
from benchmarks.figures.histograms import N_AGENTS, SEED, K, last_assignments, plot_histograms
from benchmarks.figures.pictures import plot_learning, plot_welfare, save
from benchmarks.figures.plan import Sweep, read_sweeps
from benchmarks.figures.tours import plot_all, read_tours

#: The sweep whose models walk for figure 1; it has no curves
TOURS = "figure1"
TOURS_COMMAND = "python -m benchmarks.figures.tours benchmarks/results/figure1-models/*.zip"

#: Headings of our own sweeps; others go by their names
HEADINGS = {
    "figure1": "Figure 1: tours in Resource Gathering",
    "figure2": "Figure 2: Resource Gathering",
    "figure3_full": "Figure 3: velocity tasks, as in the paper",
    "figure3_halfcheetah": "Figure 3, HalfCheetah, three seeds",
    "figure3_robots": "Figure 3, the other robots at k = 5",
    "figure4": "Figure 4: who is served by whom, HalfCheetah",
    "figure5": "Figure 5: who is served by whom, other robots",
    "ablations_falls": "Ablations: Hopper",
    "ablations_grid": "Ablations: Resource Gathering",
    "ablations_ways": "Ablations: the search for a tour",
    "ablations_hyperparams": "Ablations: settings of HalfCheetah",
    "ablations_lasting": "Ablations: promises, Hopper",
    "ablations_noise": "Ablations: chance, Resource Gathering",
    "ablations_promises": "Ablations: promises, HalfCheetah",
    "ablations_robot": "Ablations: HalfCheetah",
    "ablations_shares": "Ablations: promises, three robots that fall",
    "populations": "Other populations: HalfCheetah",
    "populations_early": "How soon: three populations, HalfCheetah",
    "cost": "Cost",
}

#: Environments of the histograms, and the sweeps from which they can come
HISTOGRAMS = {
    "figure4": ({"HalfCheetah": "rmdp/HalfCheetahVelocity-v0"}, ("figure3_halfcheetah", "figure3_full")),
    "figure5": (
        {robot: f"rmdp/{robot}Velocity-v0" for robot in ("Ant", "Hopper", "Walker2d")},
        ("figure3_robots", "figure3_full"),
    ),
}

HEAD = """# Measured figures of the paper

Made by `make figures` from the results beside this folder, and by nobody's hand. Social welfare is a mean over agents; ± is
one standard error over seeds of trainings, their number in parentheses; a single seed has none. All are evaluated on the same
start states, which it does not contain. Shares are of the optimum (Resource Gathering) or of an upper bound
(velocity tasks). "Stochastic" samples actions as in training, "deterministic" takes the likeliest ones. Tests are two-sided
paired t-tests over common seeds, adjusted by Holm's method for the number of rivals at that k; "ahead" counts the pairs in
which the first algorithm has more. "Together" is one test over all environments of a table, in which every seed of each of
them is a pair. Run by run, "if agents chose" is what the same policies pay (stochastic) if each agent takes the best of
them, and "best speeds for groups" what the same groups would have if each representative held, all the time, the speed
that is best for its own: what welfare is below that, policies lack, and what that is below "at most", the assignment."""

COST = """One run is one training on one core, evaluations not counted. What is left is judged by what the same, or else the
nearest, runs took per transition on the machine that made the results. Runs that two sweeps share count for both."""


class Report:
    """
    Draws what there are results for, and says of the rest how to get them.

    :param sweeps: folder of the files of sweeps
    :param results: folder of their results
    :param out: folder of pictures and tables
    :param kind: of policy that is drawn, "stochastic" or "deterministic"
    :param say: takes a line for each figure
    """

    def __init__(self, sweeps: Path, results: Path, out: Path, kind: str, say: Callable[[str], None]):
        self.results, self.out, self.kind, self.say = results, out, kind, say
        self.sweeps, self.strays = read_sweeps(sweeps, results)
        #: By name, what the page shows
        self.sections: dict[str, list[str]] = {}
        #: By name, what it has beside that
        self.details: dict[str, list[str]] = {}

    def make(self) -> Path:
        """
        :return: the page, everything being written
        """
        for file, count in self.strays.items():
            self.say(f"{file}: {count} runs left out, which no sweep plans as they are; something has changed since")
        for name, sweep in self.sweeps.items():
            if name == TOURS:
                self._tours(sweep)
            else:
                self._welfare(name, sweep)
        for name, (environments, sources) in HISTOGRAMS.items():
            self._histograms(name, environments, [self.sweeps[source] for source in sources if source in self.sweeps])
        sweeps = list(self.sweeps.values())
        self.sections["cost"] = [COST, tables.costs(list(zip(sweeps, costs(sweeps), strict=True)))]
        path = self.out / "tables.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self._page(), encoding="utf-8")
        return path

    def _tours(self, sweep: Sweep) -> None:
        path = self.results / f"{TOURS}.json"
        if not path.exists():
            self._skip(TOURS, f"`{sweep.plan.command}`, then `{TOURS_COMMAND}`")
            return
        figures = plot_all(read_tours(path))
        self.sections[TOURS] = [self._picture(f"{TOURS}_k{k}", figure, f"Tours, k = {k}") for k, figure in figures.items()]

    def _welfare(self, name: str, sweep: Sweep) -> None:
        figure, curves = plot_welfare(sweep, self.kind), plot_learning(sweep, self.kind)
        checkpoint = sweep.reached()
        if figure is None or curves is None or checkpoint is None:
            self._skip(name, f"`{sweep.plan.command}`")
            return
        done = sweep.seeds_done(sweep.plan.tasks, checkpoint)
        said = f"Welfare ({self.kind}) after {checkpoint:,} transitions per policy" + (f", {done} so far." if done else ".")
        section = [self._picture(name, figure, HEADINGS.get(name, name)), said, tables.overview(sweep, self.kind)]
        tests = tables.tests(sweep)
        if tests:
            section += ["Differences of paired seeds:", tests]
        self.sections[name] = section
        runs = ["Run by run:", f"<!-- runs of {name} -->", tables.runs(sweep), f"<!-- end of runs of {name} -->"]
        self.details[name] = [self._picture(f"{name}_curves", curves, "Learning curves"), tables.details(sweep), *runs]

    def _histograms(self, name: str, environments: Mapping[str, str], sources: list[Sweep]) -> None:
        found = {robot: last_assignments(sources, env) for robot, env in environments.items()}
        found = {robot: rows for robot, rows in found.items() if rows[0]}
        if not found:
            self._skip(name, " or ".join(f"`{sweep.plan.command}`" for sweep in sources) or "a sweep of figure 3")
            return
        said = f"k = {K}, n = {N_AGENTS}, seed {SEED}, at the end of the training."
        missing = [robot for robot in environments if robot not in found]
        said += f" Not there yet: {', '.join(missing)}." if missing else ""
        self.sections[name] = [self._picture(name, plot_histograms(found), HEADINGS[name]), said]

    def _picture(self, name: str, figure: Figure, said: str) -> str:
        """Save it; the line that shows it, or says what it would show."""
        path = save(figure, self.out / f"{name}.png")
        self.say(f"{name}: wrote {path}")
        return f"![{said}]({path.name})"

    def _skip(self, name: str, how: str) -> None:
        self.say(f"{name}: skipped, no results; run {how.replace('`', '')}")
        self.sections[name] = [f"No results yet; run {how}."]

    def _page(self) -> str:
        parts = [HEAD]
        order = sorted(self.sections.keys() - {"cost"}) + ["cost"]
        for name in order:
            marked = [f"<!-- {name} -->", *self.sections[name], f"<!-- end of {name} -->"]
            parts += [f"## {HEADINGS.get(name, name)}", *marked, *self.details.get(name, [])]
        return "\n\n".join(parts) + "\n"
