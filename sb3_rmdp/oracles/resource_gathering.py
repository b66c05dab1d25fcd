"""Exact optimum of Resource Gathering (section 4.1 of the r-MDP paper) by column generation over closed walks.

An episode is a closed walk from home to home, so a set of k policies is a set of at most k closed walks, and the best
assignment gives each agent to the shortest of them that visits its tile. Choosing the walks is a facility location
problem with one column per walk, far too many to list. It is solved exactly in three steps:

1. *Linear relaxation.* Walks are generated where the dual prices ask for them, until none has a positive reduced cost.
   With u_i the price of agent i and lam the price of a representative, a walk of T steps that visits the set V has the
   reduced cost sum_{i in V} max(0, 100 - T - u_i) - lam, so pricing looks for walks that collect prizes.
2. *Enumeration.* By duality the total value of any choice of walks is the bound z = sum_i u_i + k * lam minus terms that
   are all >= 0, among them minus the reduced cost of every chosen walk. Hence a choice worth at least `goal` uses only
   walks with a reduced cost of at least -(z - goal), and gives no agent to a walk with 100 - T - u_i < -(z - goal).
   All of those are listed.
3. *Integer programme* over that list. A solution worth at least `goal` is therefore optimal among all walks; if there is
   none, `goal` is lowered. Totals are integers, so that the first goal is z rounded down.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from operator import index as as_int

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, linprog, milp

MAX_TILES = 30
BASE_REWARD = 100  # an agent whose tile was visited gets 100 - T
TOLERANCE = 1e-6  # on reduced costs; the linear solver works to 1e-7
SLACK = 1e-3  # on totals, which are integers: above the sum of all tolerances, far below 1
BEAM = 300  # partial walks kept per step while a quick look for improving walks is enough
WALKS_PER_LENGTH = 20  # improving walks added per length and round
# The relaxation has many dual solutions. Taking this off k picks the one that prices representatives highest and agents
# lowest, which leaves fewer walks to list (tens of times fewer for k = 1). Any dual solution bounds the total.
TILT = 1e-4

Walk = tuple[int, ...]  # tiles (row * cols + col) in the order of the visit, home first and last
Pool = dict[tuple[int, frozenset[int]], Walk]  # (steps, visited tiles) -> one such walk


@dataclass(frozen=True, eq=False)
class OptimalTours:
    """
    An optimal set of tours with the assignment that goes with it.

    :param welfare: mean over the n agents of the return under their own representative, in [0, 99]
    :param tours: one closed walk per representative that serves anyone, shortest first, at most k; each is the sequence
        of (row, col) tiles from home to home, so its length T is one less than its number of entries
    :param assignment: representative of each agent, int64 of shape (n,), indices into ``tours``; read-only. An agent that
        no tour visits (possible under a tight step limit only) has 0
    """

    welfare: float
    tours: tuple[tuple[tuple[int, int], ...], ...]
    assignment: NDArray[np.int64]


@dataclass(frozen=True)
class _Grid:
    """Tiles 0..n-1 with their neighbours (n, 4), padded with -1, and step distances (n, n)."""

    neighbours: NDArray[np.int64]
    distance: NDArray[np.int64]
    home: int

    @property
    def n_tiles(self) -> int:
        return len(self.distance)


@dataclass(frozen=True)
class _Prices:
    """Dual solution of the linear relaxation: its value, prices of agents (n,) and of one more representative."""

    bound: float
    agents: NDArray[np.float64]
    representative: float

    def prizes(self, length: int) -> NDArray[np.float64]:
        """What each agent (n,) is worth to a walk of ``length`` steps, over its price."""
        return BASE_REWARD - length - self.agents


def resource_gathering_optimum(
    k: int, shape: tuple[int, int] = (5, 5), home: tuple[int, int] = (4, 2), max_episode_steps: int = 40
) -> OptimalTours:
    """
    Best welfare that any k policies can reach in Resource Gathering, with tours that reach it.

    One agent per tile, n = rows * cols. An episode starts at home, moves up, down, left or right, and ends on return to
    home after T steps, when every agent whose tile was visited gets 100 - T. Bumping into a wall costs a step; at a home
    on the border that ends the episode with T = 1. Results are cached.

    :param k: number of representatives, 1 <= k <= n
    :param shape: rows and columns of the grid, at most 30 tiles
    :param home: row and column of the home tile
    :param max_episode_steps: step limit; episodes that are not home by then are worth nothing
    :return: an exact optimum
    :raises ValueError: if an argument is outside of its range
    """
    rows, cols = (as_int(size) for size in shape)
    row, col = (as_int(position) for position in home)
    if rows < 1 or cols < 1 or rows * cols > MAX_TILES:
        raise ValueError(f"shape={(rows, cols)} has {rows * cols} tiles: pass positive sizes with at most {MAX_TILES} tiles")
    if not (0 <= row < rows and 0 <= col < cols):
        raise ValueError(f"home={(row, col)} is outside of the grid: pass a row in [0, {rows}) and a column in [0, {cols})")
    if not 1 <= k <= rows * cols:
        raise ValueError(f"k={k} representatives for {rows * cols} agents: pass a k in [1, {rows * cols}]")
    if max_episode_steps < 1:
        raise ValueError(f"max_episode_steps={max_episode_steps} leaves no step to take: pass at least 1")
    return _solve(as_int(k), (rows, cols), (row, col), as_int(max_episode_steps))


@cache
def _solve(k: int, shape: tuple[int, int], home: tuple[int, int], max_episode_steps: int) -> OptimalTours:
    grid = _make_grid(shape, home)
    # An even length each, the grid being bipartite. Walking around a tree that spans all tiles, home a leaf of it, takes
    # 2 (n - 1) steps: longer walks visit nothing more. Bumps elsewhere than at home only waste steps.
    lengths = range(2, min(max_episode_steps, 2 * (grid.n_tiles - 1)) + 1, 2)
    pool: Pool = {}
    if home[0] in (0, shape[0] - 1) or home[1] in (0, shape[1] - 1):
        _add(pool, np.array([[grid.home, grid.home]]))  # the bump
    if lengths:
        _add(pool, np.array([[grid.home, tile, grid.home] for tile in grid.neighbours[grid.home] if tile >= 0]))
    walks = _optimal_walks(grid, k, lengths, pool) if pool else []
    return _assign(sorted(walks, key=len), grid.n_tiles, shape[1])


def _make_grid(shape: tuple[int, int], home: tuple[int, int]) -> _Grid:
    rows, cols = shape
    row, col = np.divmod(np.arange(rows * cols), cols)
    distance = np.abs(row[:, None] - row) + np.abs(col[:, None] - col)
    neighbours = np.full((rows * cols, 4), -1)
    for tile, steps in enumerate(distance):
        adjacent = np.flatnonzero(steps == 1)
        neighbours[tile, : len(adjacent)] = adjacent
    return _Grid(neighbours, distance, home[0] * cols + home[1])


def _optimal_walks(grid: _Grid, k: int, lengths: range, pool: Pool) -> list[Walk]:
    """Solve the three steps of the module's docstring; ``pool`` holds walks to start from."""
    prices = _relax(grid, k, lengths, pool)
    bumps: Pool = {key: walk for key, walk in pool.items() if len(walk) == 2}
    best: list[Walk] = []
    best_total = 0
    # Totals above `goal` are ruled out: a choice that reaches it is optimal.
    for goal in range(int(prices.bound + SLACK), 0, -1):
        if best_total >= goal:
            break
        gap = prices.bound - goal + SLACK
        candidates = dict(bumps) if prices.prizes(1)[grid.home] - prices.representative >= -gap else {}
        if goal % 2 == 1 and not candidates:
            continue  # without the bump all rewards are even: what reaches `goal` reaches goal + 1
        for length in lengths:
            _add(candidates, _closed_walks(grid, length, prices, gap)[0])
        chosen, total = _choose(list(candidates.values()), grid.n_tiles, k)
        if total > best_total:
            best, best_total = chosen, total
    return best


def _relax(grid: _Grid, k: int, lengths: range, pool: Pool) -> _Prices:
    """Column generation: add walks to ``pool`` until the relaxation over it is the relaxation over all walks."""
    while True:
        prices = _price(list(pool.values()), grid.n_tiles, k)
        before = len(pool)
        for beam in (BEAM, None):  # only the last round has to prove that nothing improves
            for length in lengths:
                walks, totals = _closed_walks(grid, length, prices, -TOLERANCE, beam)
                _add(pool, walks[np.argsort(-totals, kind="stable")[:WALKS_PER_LENGTH]])
            if len(pool) > before:
                break
        else:
            return prices


def _closed_walks(
    grid: _Grid, length: int, prices: _Prices, gap: float, beam: int | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """
    Closed walks from home of exactly ``length`` steps with a reduced cost above ``-gap``.

    Two walks that differ only in tiles with a prize below ``-gap`` count as one. Breadth-first over (position, visited
    tiles), cut off where the prizes still within reach cannot lift the total to what is asked for.

    :param grid: the grid
    :param length: number of steps, even, at least 2
    :param prices: dual prices
    :param gap: how far below 0 the reduced cost may be
    :param beam: keep only so many partial walks per step, which makes the search quick and incomplete
    :return: walks (m, length + 1) and the prizes that each collects (m,)
    """
    prizes = prices.prizes(length)
    bits = np.where(prizes >= -gap, np.left_shift(1, np.arange(grid.n_tiles)), 0)
    prizes = np.where(bits > 0, np.maximum(prizes, 0.0), 0.0)
    floor = prices.representative - gap
    position, visited, total = np.array([grid.home]), bits[[grid.home]], prizes[[grid.home]]
    trace = []  # per step: (position, index of the predecessor)
    for left in range(length - 1, -1, -1):  # steps left after this one
        parent, slot = np.nonzero(grid.neighbours[position] >= 0)
        position = grid.neighbours[position[parent], slot]
        # Home ends the episode: it may be entered by the last step only.
        keep = (grid.distance[position, grid.home] <= left) & ((position != grid.home) | (left == 0))
        parent, position = parent[keep], position[keep]
        new = visited[parent] & bits[position] == 0
        total = total[parent] + np.where(new, prizes[position], 0.0)
        visited = visited[parent] | bits[position]
        keep = np.unique(visited * MAX_TILES + position, return_index=True)[1]
        bound = total[keep] + _reachable_prizes(grid, prizes, position[keep], visited[keep], left)
        keep, bound = keep[bound > floor], bound[bound > floor]
        if beam is not None and len(keep) > beam:
            keep = keep[np.argpartition(-bound, beam)[:beam]]
        position, visited, total = position[keep], visited[keep], total[keep]
        trace.append((position, parent[keep]))
    walks = np.full((len(position), length + 1), grid.home)
    index = np.arange(len(position))
    for step in range(length, 0, -1):
        tiles, parent = trace[step - 1]
        walks[:, step], index = tiles[index], parent[index]
    return walks, total


def _reachable_prizes(
    grid: _Grid, prizes: NDArray[np.float64], position: NDArray[np.int64], visited: NDArray[np.int64], left: int
) -> NDArray[np.float64]:
    """
    Upper bound (m,) on what partial walks can still collect on ``left`` steps home.

    Neighbours differ in colour, as on a chessboard: the tiles entered before home are at most left // 2 of the other
    colour than the current tile's and (left - 1) // 2 of the same, and each has to lie near enough.
    """
    colour = grid.distance[0] % 2
    room = np.empty((2, len(position)), dtype=np.int64)  # by whether the colour is the same
    room[0], room[1] = left // 2, max(0, (left - 1) // 2)
    everyone = np.arange(len(position))
    bound = np.zeros(len(position))
    for tile in np.argsort(-prizes, kind="stable"):
        if prizes[tile] <= 0:
            break
        if tile == grid.home:
            continue
        same = (colour[position] == colour[tile]).astype(np.int64)
        near = grid.distance[position, tile] + grid.distance[tile, grid.home] <= left
        taken = near & (visited >> tile & 1 == 0) & (room[same, everyone] > 0)
        room[same, everyone] -= taken
        bound += prizes[tile] * taken
    return bound


def _add(pool: Pool, walks: NDArray[np.int64]) -> None:
    for walk in walks.tolist():
        pool.setdefault((len(walk), frozenset(walk)), tuple(walk))


def _programme(walks: list[Walk], n_tiles: int, k: int) -> tuple[NDArray[np.float64], sparse.csr_array, NDArray[np.float64]]:
    """
    Gains c and constraints A x <= b of the facility location problem over ``walks``, to be maximised.

    x = (y, s): y_w = 1 chooses walk w, s[i, l] = 1 means that agent i is served within the l-th shortest length. Serving
    it within that length and not only within the next one is worth their difference, so the total is c @ s (the canonical
    formulation of Cornuejols, Nemhauser and Wolsey; as tight as one variable per agent and walk, and much smaller).

    :param walks: candidate walks
    :param n_tiles: number of agents n
    :param k: number of representatives
    :return: c (W + n L,), A (n L + 1, W + n L), b (n L + 1,) for W walks of L distinct lengths
    """
    steps, level = np.unique([len(walk) - 1 for walk in walks], return_inverse=True)
    gains = -np.diff(BASE_REWARD - steps, append=0)
    visits = np.zeros((n_tiles, len(walks)), dtype=bool)
    for index, walk in enumerate(walks):
        visits[list(walk), index] = True
    # s[i, l] <= number of chosen walks that visit i within the l-th length
    serves = visits[:, None, :] & (level[None, None, :] <= np.arange(len(steps))[None, :, None])
    served = n_tiles * len(steps)
    matrix = sparse.block_array(
        [
            [-sparse.csr_array(serves.reshape(served, -1).astype(float)), sparse.eye_array(served)],
            [sparse.csr_array(np.ones((1, len(walks)))), None],
        ],
        format="csr",
    )
    return np.r_[np.zeros(len(walks)), np.tile(gains, n_tiles)], matrix, np.r_[np.zeros(served), float(k)]


def _price(walks: list[Walk], n_tiles: int, k: int) -> _Prices:
    """Linear relaxation over ``walks``."""
    gains, matrix, limits = _programme(walks, n_tiles, k)
    limits[-1] -= TILT
    upper = np.r_[np.full(len(walks), np.inf), np.ones(len(gains) - len(walks))]
    result = linprog(-gains, A_ub=matrix, b_ub=limits, bounds=np.c_[np.zeros(len(gains)), upper], method="highs")
    if not result.success:
        raise RuntimeError(f"the linear relaxation was not solved: {result.message}")
    # The price of an agent is what the bounds s[i, l] <= 1 earn together; those on y are infinite.
    agents = -result.upper.marginals[len(walks) :].reshape(n_tiles, -1).sum(axis=1)
    representative = -float(result.ineqlin.marginals[-1])
    return _Prices(float(agents.sum()) + k * representative, agents, representative)


def _choose(walks: list[Walk], n_tiles: int, k: int) -> tuple[list[Walk], int]:
    """Best at most k of ``walks``, and their total over the agents."""
    if not walks:
        return [], 0
    gains, matrix, limits = _programme(walks, n_tiles, k)
    result = milp(
        -gains,
        integrality=np.arange(len(gains)) < len(walks),
        bounds=Bounds(0, 1),
        constraints=LinearConstraint(matrix, -np.inf, limits),
        options={"mip_rel_gap": 0.0},
    )
    if not result.success:
        raise RuntimeError(f"the integer programme was not solved: {result.message}")
    return [walks[index] for index in np.flatnonzero(result.x[: len(walks)] > 0.5)], round(-result.fun)


def _assign(walks: list[Walk], n_tiles: int, cols: int) -> OptimalTours:
    """Give each agent to the shortest of ``walks`` (in order of length) that visits it, and drop walks without agents."""
    serving = [next((index for index, walk in enumerate(walks) if tile in walk), -1) for tile in range(n_tiles)]
    used = sorted(set(serving) - {-1})
    rewards = [BASE_REWARD - (len(walks[index]) - 1) if index >= 0 else 0 for index in serving]
    assignment = np.array([used.index(index) if index >= 0 else 0 for index in serving], dtype=np.int64)
    assignment.flags.writeable = False  # the result is cached
    tours = tuple(tuple(divmod(tile, cols) for tile in walks[index]) for index in used)
    return OptimalTours(sum(rewards) / n_tiles, tours, assignment)
