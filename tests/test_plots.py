"""Figures: panels, bars, lines and legends say what the data say; files are written; errors name the mend."""

import io
from collections import Counter

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.logger import configure

pytest.importorskip("matplotlib")
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from sb3_rmdp import RepresentedPPO, plots
from sb3_rmdp.common.assignment import HardAssignment
from sb3_rmdp.plots import AssignmentPlotCallback
from sb3_rmdp.plots.style import FAINT, QUALITATIVE
from tests.probes import KnownAssignment, vectorized

HOME = (4, 2)
LOOP = [(4, 2), (3, 2), (3, 3), (4, 3), (4, 2)]
SPUR = [(4, 2), (3, 2), (4, 2)]
BUMP = [(4, 2), (4, 2)]


def legend_texts(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def texts_of(axes):
    return [text.get_text() for text in axes.texts]


def face_colours(axes, edge):
    """Face colours of the tiles with the given edge, by (row, col); the last one drawn counts."""
    tiles = [patch for patch in axes.patches if patch.get_edgecolor()[:3] == to_rgb(edge)]
    return {(round(tile.get_y() + 0.5), round(tile.get_x() + 0.5)): tile.get_facecolor()[:3] for tile in tiles}


@pytest.mark.parametrize("k", [1, 3, 10, 11, 50])
def test_palette(k):
    colours = plots.palette(k)
    assert len(set(colours)) == k
    assert all(len(colour) == 3 and 0 <= min(colour) and max(colour) <= 1 for colour in colours)


@pytest.mark.parametrize("n_tours", [1, 3, 12])
def test_tours_have_a_panel_each(n_tours):
    figure = plots.plot_tours([LOOP] * n_tours, (5, 5), HOME)
    assert [axes.get_title() for axes in figure.axes] == [f"Representative {j}: 4 steps" for j in range(n_tours)]


def test_tours_titles():
    lost = [(4, 2), (3, 2)]
    figure = plots.plot_tours([SPUR, BUMP, lost], (5, 5), HOME, title="All", titles=["a", "b", "c"])
    assert [axes.get_title() for axes in figure.axes] == ["a: 2 steps", "b: 1 step", "c: 1 step, not home"]
    assert figure.get_suptitle() == "All"


def test_tours_shade_visited_tiles_only():
    axes = plots.plot_tours([LOOP], (5, 5), HOME).axes[0]
    shaded = {tile for tile, colour in face_colours(axes, FAINT).items() if colour != (1.0, 1.0, 1.0)}
    assert shaded == set(LOOP)


def test_tours_keep_going_and_coming_apart():
    axes = plots.plot_tours([SPUR], (5, 5), HOME).axes[0]
    x, y = next(line for line in axes.lines if len(line.get_xdata()) > 1).get_data()
    assert np.all(np.abs(x - 2) > 0.05)  # up the column of home and down again, never in the middle
    assert x[0] > 2 > x[-1]  # on the right both times: y points down
    assert y.min() > 2.5  # turns round within the tile
    arrows = [line.get_marker() for line in axes.lines if line.get_marker() in ("^", "v")]
    assert arrows == ["^", "v"]


def test_assignment_map():
    assignment = np.array([0, 0, 1, 1, 1, 3])
    figure = plots.plot_assignment_map(assignment, (2, 3), home=(1, 0))
    axes = figure.axes[0]
    assert texts_of(axes) == ["0", "0", "1", "1", "1", "3"]
    assert legend_texts(figure) == ["0: 2 agents", "1: 3 agents", "2: 0 agents", "3: 1 agent"]
    colours = plots.palette(4)
    assert face_colours(axes, "white")[1, 2] == colours[3] and face_colours(axes, "white")[0, 1] == colours[0]
    assert len(axes.lines) == 1  # the mark of home


def test_assignment_map_shows_own_utilities():
    utilities = np.arange(18.0).reshape(6, 3)
    figure = plots.plot_assignment_map([2, 1, 0, 0, 1, 1], (3, 2), utilities=utilities)
    assert texts_of(figure.axes[0])[1::2] == ["2", "4", "6", "9", "13", "16"]
    assert len(legend_texts(figure)) == 3


def test_assignment_histogram():
    targets = np.array([0.1, 0.2, 0.3, 1.1, 1.2, 3.9])
    figure = plots.plot_assignment_histogram(targets, [0, 0, 1, 1, 1, 2], k=4, bins=[0, 1, 2, 3, 4], xlabel="speed")
    axes = figure.axes[0]
    assert legend_texts(figure) == ["0: 2 agents", "1: 3 agents", "2: 1 agent", "3: 0 agents"]
    bars = [(bar.get_x(), bar.get_y(), bar.get_height()) for bar in axes.patches]
    assert bars == [(0, 0, 2), (0, 2, 1), (1, 0, 2), (3, 0, 1)]  # stacked, nothing where there is nobody
    assert axes.get_xlabel() == "speed"


def test_assignment_histogram_of_many_representatives():
    targets = np.random.default_rng(0).uniform(0, 4, 1000)
    figure = plots.plot_assignment_histogram(targets, np.arange(1000) % 50, k=50)
    assert len(legend_texts(figure)) == 50
    assert sum(bar.get_height() for bar in figure.axes[0].patches) == 1000


def test_group_sizes():
    figure = plots.plot_group_sizes([0, 2, 2, 0, 2], k=4)
    axes = figure.axes[0]
    assert legend_texts(figure) == ["0: 2 agents", "1: 0 agents", "2: 3 agents", "3: 0 agents"]
    bars = [(round(bar.get_x() + bar.get_width() / 2), bar.get_height(), bar.get_facecolor()[:3]) for bar in axes.patches]
    assert bars == [(0, 2, plots.palette(4)[0]), (2, 3, plots.palette(4)[2])]
    assert len(plots.plot_group_sizes(np.arange(1000) % 50).axes[0].patches) == 50


def test_flips():
    axes = plots.plot_flips([100, 200, 400], [3, 0], n_agents=5).axes[0]
    bars = [(bar.get_x(), bar.get_width(), bar.get_height()) for bar in axes.patches]
    assert bars == [(100, 100, 3), (200, 200, 0)]
    assert axes.get_title(loc="right") == "last: 0 of 5 agents"


def test_welfare_curves():
    x = np.array([0, 10, 20])
    seeds = np.array([[1.0, 2.0, 3.0], [3.0, 2.0, 5.0]])
    figure = plots.plot_welfare_curves({"one": (x, [1, 2, 3]), "two": (x, seeds)}, optimum=6, optimum_label="upper bound")
    axes = figure.axes[0]
    assert legend_texts(figure) == ["one", "two", "upper bound (6.00)"]
    assert np.allclose(axes.lines[0].get_ydata(), [1, 2, 3])
    assert np.allclose(axes.lines[1].get_ydata(), [2, 2, 4])
    assert axes.lines[2].get_linestyle() == "--" and np.allclose(axes.lines[2].get_ydata(), 6)
    (band,) = axes.collections  # for the mean over seeds only
    edges = {(round(px), round(py, 6)) for px, py in band.get_paths()[0].vertices}
    assert {(0, 1.0), (0, 3.0), (10, 2.0), (20, 3.0), (20, 5.0)} == edges  # standard error of two seeds: half their gap
    assert not plots.plot_welfare_curves({"one seed": (x, seeds[:1])}).axes[0].collections


@pytest.mark.parametrize(
    ("draw", "arguments"),
    [
        (plots.plot_tours, ([LOOP, SPUR], (5, 5), HOME)),
        (plots.plot_assignment_map, (np.arange(25) % 3, (5, 5), HOME)),
        (plots.plot_assignment_histogram, (np.linspace(0, 4, 20), np.arange(20) // 7)),
        (plots.plot_group_sizes, ([0, 1, 1],)),
        (plots.plot_flips, ([0, 10], [1], 3)),
        (plots.plot_welfare_curves, ({"EM": ([1, 2], [[1, 2], [2, 3]])}, 4)),
    ],
)
def test_files_are_written(draw, arguments, tmp_path):
    path = tmp_path / "new" / "folder" / "figure.png"
    draw(*arguments, path=path)
    assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 5000
    draw(*arguments, path=str(path.with_name("again.png")))
    assert path.with_name("again.png").exists()


def test_no_global_state_of_matplotlib(tmp_path):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    figures, settings = pyplot.get_fignums(), dict(pyplot.rcParams)
    plots.plot_tours([LOOP], (5, 5), HOME, path=tmp_path / "tours.png")
    plots.plot_welfare_curves({"EM": ([1, 2], [1, 2])}, path=tmp_path / "curves.png")
    assert pyplot.get_fignums() == figures and dict(pyplot.rcParams) == settings


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plots.plot_tours([], (5, 5), HOME), "at least one tour"),
        (lambda: plots.plot_tours([LOOP], (5, 5), (5, 0)), r"home=\(5, 0\) .* 5 x 5 grid"),
        (lambda: plots.plot_tours([LOOP], (5, 5), HOME, titles=["a", "b"]), "2 titles for 1 tours"),
        (lambda: plots.plot_tours([LOOP, LOOP[1:]], (5, 5), HOME), r"tour 1 does not start at home=\(4, 2\)"),
        (lambda: plots.plot_tours([[]], (5, 5), HOME), "tour 0 does not start"),
        (lambda: plots.plot_tours([[(4, 2), (5, 2)]], (5, 5), HOME), r"tour 0 leaves the 5 x 5 grid at \(5, 2\)"),
        (lambda: plots.plot_tours([[(4, 2), (3, 3)]], (5, 5), HOME), r"jumps from \(4, 2\) to \(3, 3\)"),
        (lambda: plots.plot_assignment_map([0] * 24, (5, 5)), "24 agents on a 5 x 5 grid: pass 25"),
        (lambda: plots.plot_assignment_map([0.0] * 4, (2, 2)), "type float64: pass one integer"),
        (lambda: plots.plot_assignment_map([0, -1, 0, 0], (2, 2)), "from -1 to 0"),
        (lambda: plots.plot_assignment_map([0] * 4, (2, 2), home=(2, 0)), r"home=\(2, 0\)"),
        (lambda: plots.plot_assignment_map([0] * 4, (2, 2), utilities=np.zeros((3, 2))), r"shape \(3, 2\).*\(4, k\)"),
        (lambda: plots.plot_assignment_map([0, 0, 0, 2], (2, 2), utilities=np.zeros((4, 2))), "to 2: .*k=2"),
        (lambda: plots.plot_assignment_histogram([1.0], [0, 1]), r"shape \(1,\).*\(2,\)"),
        (lambda: plots.plot_assignment_histogram([1.0, np.nan], [0, 1]), "1 values that are not finite"),
        (lambda: plots.plot_assignment_histogram([1.0, 2.0], [0, 5], k=5), "to 5: .*k=5"),
        (lambda: plots.plot_assignment_histogram([], np.zeros(0, dtype=int)), r"shape \(0,\)"),
        (lambda: plots.plot_group_sizes([0, 3], k=3), "to 3: .*k=3"),
        (lambda: plots.plot_flips([0], [], 5), r"shape \(1,\) and flips \(0,\): pass the edges"),
        (lambda: plots.plot_flips([0, 1], [1, 2], 5), r"shape \(2,\) and flips \(2,\)"),
        (lambda: plots.plot_flips([0, 10, 10], [1, 2], 5), r"\[0.0, 10.0, 10.0\] do not rise"),
        (lambda: plots.plot_flips([0, 1, 2], [0, 6], 5), "from 0 to 6: .*n_agents=5"),
        (lambda: plots.plot_welfare_curves({}), "curves is empty"),
        (lambda: AssignmentPlotCallback(n_rollouts=0), "n_rollouts=0 counts rollouts"),
        (lambda: plots.plot_welfare_curves({"EM": ([1, 2], [1, 2, 3])}), r"'EM' has x of shape \(2,\) and y of shape \(3,\)"),
        (lambda: plots.plot_welfare_curves({"EM": ([], [])}), "'EM' has x of shape"),
        (lambda: plots.plot_welfare_curves({"EM": ([1], [np.inf])}), "'EM' has values that are not finite"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


class Scripted(HardAssignment):
    """Six agents who begin as 0, 1, 2, 0, 1, 2 and follow a script, a line per rollout."""

    script = (
        [0, 1, 2, 0, 1, 1],
        [0, 0, 0, 0, 0, 1],
        [0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 1],
        [2, 0, 0, 0, 0, 1],
        [2, 0, 0, 0, 0, 1],
    )

    def update(self, progress):
        self.lines = getattr(self, "lines", -1) + 1
        self.served_by.copy_(th.tensor(self.script[self.lines]))


def scripted(**kwargs):
    """A training of six rollouts of 48 timesteps."""
    env = vectorized(KnownAssignment, 3)
    small = dict(n_steps=16, batch_size=16, n_epochs=1, seed=0, device="cpu")
    return RepresentedPPO("MlpPolicy", env, k=3, assignment=Scripted, **small, **kwargs)


def pictures(folder):
    """Scalars and pictures (height, width, rgba) of the event file in a folder, by tag and timesteps."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator").EventAccumulator
    events = accumulator(str(folder), size_guidance={"images": 0, "scalars": 0}).Reload()
    scalars = {tag: {event.step: event.value for event in events.Scalars(tag)} for tag in events.Tags()["scalars"]}
    images = {
        tag: {event.step: imread(io.BytesIO(event.encoded_image_string), format="png") for event in events.Images(tag)}
        for tag in events.Tags()["images"]
    }
    return scalars, images


def area(image, colour):
    """Pixels of a colour."""
    return int((np.abs(image[..., :3] - colour).max(axis=-1) < 0.01).sum())


def test_assignments_in_tensorboard(tmp_path, capsys):
    """Beside all other outputs of SB3, none of which can write figures."""
    pyplot = pytest.importorskip("matplotlib.pyplot")
    figures = pyplot.get_fignums()
    model = scripted()
    model.set_logger(configure(str(tmp_path), ["stdout", "log", "json", "csv", "tensorboard"]))
    model.learn(6 * 48, callback=AssignmentPlotCallback(n_rollouts=2))
    model.logger.close()
    assert "plots" not in capsys.readouterr().out + (tmp_path / "progress.csv").read_text()
    assert pyplot.get_fignums() == figures
    scalars, images = pictures(tmp_path)
    # From 0, 1, 2, 0, 1, 2 to line 1: agents 1, 2, 4 and 5; to line 3: none, agent 5 is back; to line 5: agent 0
    assert scalars["assignment/flips"] == {96: 4, 192: 0, 288: 1}
    assert scalars["assignment/reassigned"] == {48: 1, 96: 3, 144: 1, 192: 1, 240: 1, 288: 0}
    assert {tag: list(by_time) for tag, by_time in images.items()} == {
        "plots/agents": [96, 192, 288],
        "plots/flips": [96, 192, 288],
    }
    # Every colour has its sample in the legend and a bar as high as the group is large: 5, 1 and 0, then 4, 1 and 1
    colours = plots.palette(3)
    first, last = (images["plots/agents"][timesteps] for timesteps in (96, 288))
    sample = area(first, colours[2])
    assert sample > 50
    np.testing.assert_allclose(area(first, colours[0]) - sample, 5 * (area(first, colours[1]) - sample), rtol=0.05)
    np.testing.assert_allclose(area(last, colours[0]) - sample, 4 * (area(last, colours[1]) - sample), rtol=0.05)
    np.testing.assert_allclose(area(last, colours[1]), area(last, colours[2]), rtol=0.05)
    # Of three bars, of 4, 0 and 1 agents, the first has four fifths of the area
    flips = images["plots/flips"][288]
    columns = (np.abs(flips[..., :3] - to_rgb(QUALITATIVE[-1])).max(axis=-1) < 0.01).sum(axis=0)
    left, right = np.array_split(columns[np.flatnonzero(columns)[0] :], 2)
    np.testing.assert_allclose(left.sum() / (left.sum() + right.sum()), 0.8, atol=0.03)


def test_assignments_by_target_in_files(tmp_path, capsys):
    """Without TensorBoard."""
    model = scripted(verbose=1)
    callback = AssignmentPlotCallback(n_rollouts=3, targets=np.arange(6.0), xlabel="speed", folder=tmp_path / "new" / "folder")
    model.learn(6 * 48, callback=callback)
    files = Counter(path.name for path in (tmp_path / "new" / "folder").iterdir())
    assert files == Counter(["agents_144.png", "agents_288.png", "flips.png"])
    # At 144 all agents are with representative 0, at 288 there are three groups, in the colours of their representatives
    images = [imread(tmp_path / "new" / "folder" / f"agents_{timesteps}.png") for timesteps in (144, 288)]
    bars = [[area(image, colour) for colour in plots.palette(3)] for image in images]
    assert bars[0][1:] == pytest.approx([bars[0][1]] * 2, rel=0.1)  # the samples of the legend
    assert min(bars[1][1:]) > 3 * max(bars[0][1:]) and bars[1][0] < bars[0][0]
    assert callback.timesteps == [0, 144, 288] and callback.flips == [4, 2]
    assert "flips " in capsys.readouterr().out


def test_a_training_that_goes_on_keeps_its_flips():
    model, callback = scripted(), AssignmentPlotCallback(n_rollouts=2)
    model.learn(3 * 48, callback=callback)
    model.learn(3 * 48, callback=callback, reset_num_timesteps=False)
    assert callback.timesteps == [0, 96, 192, 288] and callback.flips == [4, 0, 1]
    model.assignment.lines = -1
    model.learn(2 * 48, callback=callback)
    assert callback.timesteps == [0, 96] and callback.flips == [1]  # from the last line to line 1: agent 0


def test_targets_are_one_per_agent():
    model = scripted()
    with pytest.raises(ValueError, match=r"targets has shape \(5,\).*\(6,\)"):
        model.learn(48, callback=AssignmentPlotCallback(targets=np.arange(5.0)))
    assert model.num_timesteps == 0
