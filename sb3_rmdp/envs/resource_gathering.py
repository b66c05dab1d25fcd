"""Resource Gathering: a grid world in which every tile is an agent that wants to be visited on the way."""

import operator
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import WrapperSpec
from gymnasium.error import ResetNeeded
from gymnasium.wrappers import TimeLimit

from sb3_rmdp.envs.contract import REWARD_VECTOR, integer
from sb3_rmdp.envs.grid_picture import draw_grid

Tile = tuple[int, int]

#: What an agent gets for a tour of no steps at all; every step costs one.
FULL_REWARD = 100

#: (row, column) change of the actions up, down, left, right; row 0 is the top row.
MOVES: tuple[Tile, ...] = ((-1, 0), (1, 0), (0, -1), (0, 1))


class ResourceGatheringEnv(gym.Env[np.ndarray, np.int64]):
    """
    Leave home, visit tiles, come home: every agent whose tile was visited gets 100 minus the length of the tour.

    There is one agent per tile, with index ``row * columns + column``. The episode ends when a step leaves the walker at home:
    on return, or by bumping into a wall at home. After ``T`` steps each agent whose tile was visited earns ``100 - T``, all
    others earn 0, at that last step only (returns are meant undiscounted, gamma = 1). Home counts as visited from the
    start. Bumping into a wall leaves the walker where it is and costs a step, so a bump at home at once ends the episode
    with ``T = 1`` and gives home's agent 99. At step ``max_episode_steps`` away from home the episode *terminates* without
    reward: this limit is a rule of the task, and a bootstrapped value there would pay for wandering.

    Source: section 4 of the paper, which plays it on the default grid with 25 agents.

    **Actions**: ``Discrete(4)``: 0 up, 1 down, 2 left, 3 right.

    **Observations**: ``Box(0, 1, (2 + n_agents,), float32)``: row and column scaled to [0, 1], then one visited flag per tile.

    **Info**: ``reward_vector`` at every step; ``tour`` at the last one: the tiles of the episode as ``(row, column)``, home
    first, so that a vec env's automatic reset does not lose them.

    Example::

        >>> import gymnasium as gym
        >>> import sb3_rmdp.envs
        >>> env = gym.make("rmdp/ResourceGathering-v0")
        >>> _ = env.reset(seed=0)
        >>> _, reward, terminated, _, info = env.step(1)  # home is in the bottom row: a bump
        >>> terminated, reward == 99 / 25, float(info["reward_vector"][env.unwrapped.n_agents - 3])
        (True, True, 99.0)

    :param shape: rows and columns of the grid, each at least 1
    :param home: row and column of the tile where tours start and end
    :param max_episode_steps: number of steps after which a tour that is not home ends without reward, at least 1. Beyond 100
        a return can be negative. ``gym.make(..., max_episode_steps=20)`` sets the same limit of the task, see
        :func:`step_limit_of_task`
    :param render_mode: ``None``, ``"rgb_array"`` or ``"ansi"``
    :raises ValueError: if an argument is out of its range
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array", "ansi"], "render_fps": 4}  # noqa: RUF012 (as in gymnasium.Env)

    def __init__(
        self,
        shape: Sequence[int] = (5, 5),
        home: Sequence[int] = (4, 2),
        max_episode_steps: int = 40,
        render_mode: str | None = None,
    ):
        rows, cols = _pair("shape", shape, minimum=1)
        home_row, home_col = _pair("home", home, minimum=0)
        if home_row >= rows or home_col >= cols:
            raise ValueError(
                f"home={tuple(home)} is not on the grid of shape {(rows, cols)}; "
                f"give a row in 0..{rows - 1} and a column in 0..{cols - 1}"
            )
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise ValueError(f"render_mode={render_mode!r} is unknown; use one of {self.metadata['render_modes']} or None")

        self.shape: Tile = (rows, cols)
        self.home: Tile = (home_row, home_col)
        self.max_episode_steps = max_episode_steps
        self.render_mode = render_mode
        self.n_agents = rows * cols
        #: Tiles of the current episode as (row, column), home first; readable until the next reset.
        self.path: list[Tile] = []

        self.action_space = spaces.Discrete(len(MOVES))
        self.observation_space = spaces.Box(0.0, 1.0, shape=(2 + self.n_agents,), dtype=np.float32)

        # Tables over tile indices keep the step free of arithmetic on tuples.
        self._tiles: list[Tile] = [(row, col) for row in range(rows) for col in range(cols)]
        self._next = [[self._neighbour(tile, move) for move in MOVES] for tile in self._tiles]
        self._scaled = [(row / max(rows - 1, 1), col / max(cols - 1, 1)) for row, col in self._tiles]
        self._home = home_row * cols + home_col
        self._tile = self._home
        self._steps = 0
        self._n_visited = 0
        self._observation = np.zeros(2 + self.n_agents, dtype=np.float32)
        self._over = True

    @property
    def max_episode_steps(self) -> int:
        """Number of steps after which a tour that is not home ends without reward."""
        return self._max_episode_steps

    @max_episode_steps.setter
    def max_episode_steps(self, value: int) -> None:
        self._max_episode_steps = integer("max_episode_steps", value, minimum=1)

    @property
    def population_id(self) -> str:
        """Who the agents are: the tiles of this grid, seen from this home."""
        rows, cols = self.shape
        return f"resource-gathering-{rows}x{cols}-home{self.home[0]},{self.home[1]}"

    def welfare_bound(self, k: int) -> float:
        """
        Best possible mean return over the agents with ``k`` representatives, solved to optimality.

        Tours longer than ``max_episode_steps`` are not excluded: below the length of the longest tour of an optimal set (26
        on the default grid) this is an upper bound.

        :param k: number of representatives, at least 1
        :return: welfare; 74.0 on the default grid with one representative
        """
        from sb3_rmdp.oracles import resource_gathering_optimum  # late: environments do not need the solvers

        return float(resource_gathering_optimum(k, self.shape, self.home).welfare)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """
        Begin a tour at home. The task is deterministic, the seed changes nothing.

        :param seed: seed of ``np_random``, which is not used
        :param options: not used
        :return: observation (2 + n_agents,) and an empty info
        """
        super().reset(seed=seed)
        self._tile = self._home
        self._steps = 0
        self._n_visited = 1
        self._over = False
        self.path = [self.home]
        self._observation[:2] = self._scaled[self._home]
        self._observation[2:] = 0.0
        self._observation[2 + self._home] = 1.0
        return self._observation.copy(), {}

    def step(self, action: int | np.integer) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """
        Walk one tile.

        :param action: 0 up, 1 down, 2 left, 3 right
        :return: observation (2 + n_agents,), mean reward over the agents, terminated, False, info
        :raises ValueError: if the action is not one of the four
        :raises gymnasium.error.ResetNeeded: if the episode is over
        """
        pay = self._walk(action)
        info: dict[str, Any] = {}
        reward = 0.0
        if pay:
            info[REWARD_VECTOR] = self._observation[2:] * np.float32(pay)
            reward = pay * self._n_visited / self.n_agents
        else:
            info[REWARD_VECTOR] = np.zeros(self.n_agents, dtype=np.float32)
        if self._over:
            info["tour"] = list(self.path)
        return self._observation.copy(), reward, self._over, False, info

    def _walk(self, action: int | np.integer) -> int:
        """
        The rules of a step, on the state of this environment; vec envs that step many environments at once call it as well.

        :param action: as for :meth:`step`
        :return: what each agent on the tour earns; 0 away from home
        :raises ValueError: if the action is not one of the four
        :raises gymnasium.error.ResetNeeded: if the episode is over
        """
        move = operator.index(action)
        if not 0 <= move < 4:
            raise ValueError(f"action={action} is not a move; use 0 up, 1 down, 2 left or 3 right")
        if self._over:
            raise ResetNeeded("The tour is over: call reset() before the next step()")

        tile = self._tile = self._next[self._tile][move]
        self._steps += 1
        self.path.append(self._tiles[tile])
        observation = self._observation
        observation[0], observation[1] = self._scaled[tile]
        if not observation[2 + tile]:
            observation[2 + tile] = 1.0
            self._n_visited += 1
        if tile == self._home:
            self._over = True
            return FULL_REWARD - self._steps
        self._over = self._steps >= self._max_episode_steps
        return 0

    def get_state(self) -> dict[str, Any]:
        """
        :return: where the walker is on its tour
        """
        names = ("_tile", "_steps", "_n_visited", "_over")
        return {**{name: getattr(self, name) for name in names}, "path": list(self.path), "seen": self._observation.copy()}

    def set_state(self, state: dict[str, Any]) -> None:
        """
        Go on with a tour.

        :param state: from :meth:`get_state` of an environment with the same grid
        """
        for name in ("_tile", "_steps", "_n_visited", "_over"):
            setattr(self, name, state[name])
        self.path = list(state["path"])
        # In place: a vec env has taken hold of the array
        self._observation[:] = state["seen"]

    def render(self) -> Any:
        """
        The grid, home (H), the tiles visited so far and the walker.

        :return: (height, width, 3) uint8 array for ``"rgb_array"``, a string for ``"ansi"`` (``@`` walker, ``H`` home, ``o``
            visited, ``.`` not visited), ``None`` without a render mode
        """
        if self.render_mode is None:
            gym.logger.warn('render() without a render mode; use render_mode="rgb_array" or "ansi" at construction')
            return None
        path = self.path or [self.home]
        if self.render_mode == "rgb_array":
            return draw_grid(self.shape, self.home, path)
        visited = set(path)
        signs = {**dict.fromkeys(visited, "o"), self.home: "H", path[-1]: "@"}
        rows, cols = self.shape
        lines = [" ".join(signs.get((row, col), ".") for col in range(cols)) for row in range(rows)]
        return "\n".join(
            [*lines, f"step {len(path) - 1} of {self.max_episode_steps}, {len(visited)} of {self.n_agents} tiles"]
        )

    def _neighbour(self, tile: Tile, move: Tile) -> int:
        """
        Where a move leads.

        :param tile: row and column
        :param move: change of row and column
        :return: index of the tile reached; at a wall the same tile
        """
        row, col = tile[0] + move[0], tile[1] + move[1]
        rows, cols = self.shape
        if not (0 <= row < rows and 0 <= col < cols):
            row, col = tile
        return row * cols + col


def step_limit_of_task(env: gym.Env) -> gym.Env:
    """
    Turn gymnasium's time limit around a Resource Gathering env into the limit of the task itself.

    ``gym.make(id, max_episode_steps=20)`` never hands the number to the constructor: it wraps the environment in
    ``TimeLimit``, which would *truncate* at step 20, and a learner would bootstrap there. The registered id therefore lists
    this function as its additional wrapper, which ``gym.make`` calls last: it takes ``TimeLimit`` off and gives its number
    to the environment, which then terminates at that step. ``env.spec`` remembers both, so ``gym.make(env.spec)`` gives the
    same task.

    :param env: what ``gym.make`` has built so far
    :return: the same environment without ``TimeLimit``
    :raises TypeError: if another environment is inside
    """
    base = env.unwrapped
    if not isinstance(base, ResourceGatheringEnv):
        raise TypeError(f"{type(base).__name__} is not a ResourceGatheringEnv; only its step limit belongs to the task")
    spec = base.spec
    if isinstance(env, TimeLimit):
        # The attribute and not env.spec, which caches itself in every wrapper below and would hide what is changed here.
        base.max_episode_steps = env.get_wrapper_attr("_max_episode_steps")
        env = env.env
        if spec is not None:
            spec.kwargs["max_episode_steps"] = base.max_episode_steps
    if spec is not None:
        spec.additional_wrappers = STEP_LIMIT_OF_TASK
    return env


#: ``additional_wrappers`` of the registered id.
STEP_LIMIT_OF_TASK = (WrapperSpec(name="step_limit_of_task", entry_point=f"{__name__}:step_limit_of_task", kwargs={}),)


def _pair(name: str, value: Any, minimum: int) -> Tile:
    """
    Two integers from any sequence of two.

    :param name: of the argument, for the error
    :param value: the argument
    :param minimum: smallest value allowed of either
    :return: the pair as a tuple
    :raises ValueError: if it is no pair of integers, or one is too small
    """
    if isinstance(value, str) or not hasattr(value, "__len__") or len(value) != 2:
        raise ValueError(f"{name}={value!r} is not a pair; give two integers (rows, columns)")
    return integer(name, value[0], minimum), integer(name, value[1], minimum)
