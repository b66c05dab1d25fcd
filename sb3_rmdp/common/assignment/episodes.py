"""Assignment by the best episodes that were seen."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np
import torch as th
from scipy.optimize import linear_sum_assignment

from sb3_rmdp.common.agent_weights import AgentWeights
from sb3_rmdp.common.archive import PRECISE, Archive, Episode, best_places, cosines
from sb3_rmdp.common.arguments import Count, Number
from sb3_rmdp.common.assignment.em import EMAssignment, fill_empty_groups, greedy_representatives
from sb3_rmdp.common.facility_location import searches, swap_gains, total
from sb3_rmdp.common.pace import ByHeart, ByPractice, Pace
from sb3_rmdp.common.trajectories import Lesson, Trajectory

#: Agents by whom episodes are compared, drawn from the seed: enough to know groups by, whatever the number of agents
COMPARED = 1024

#: Representatives times compared agents up to which one random set is searched from; as many less as there are more of them.
#: With fifty and a thousand, ten searches took longer than the update
SEARCHED = 50_000

#: Cosine of utilities from which on two candidates do much the same
ALIKE = 0.6

#: Share of all utilities below which a gain is rounding
NOTHING = 1e-7

#: Gain, as a share, from which on a representative learns by itself
PROGRESS = 0.003

#: What shares may be
SHARE = Number(0, 1)

#: Searches and detours after a rollout, at most: each takes its time
MANY = 100_000

#: Share of what its episode paid that a representative has to reach in time, or the episode was luck
REACHED = 0.9


class EpisodeAssignment(EMAssignment):
    """
    Each agent goes to the best of k episodes, and representatives learn to do what these episodes did.

    EM knows nothing but what the k policies pay. But every episode of a training pays all agents, so that each is a candidate
    for what a representative could do. An archive keeps those that are best for somebody. After every rollout, swaps choose
    the k best of the episodes and of the policies as they are (facility location: the sum over agents of their best candidate
    never falls). A representative whose place was taken by an episode aims at it: its agents are those who are best off with
    the episode. It goes on learning by itself, as long as it gets better; then it imitates the episode beside its own learning
    until it does as well, and practises what other good episodes do off its way, so that who strays finds better ones from
    there. Where actions are continuous, or chance has a part, no episode can be repeated exactly, and a representative that
    already does much the same has nothing to imitate.

    An episode is worth what it paid, or what it would pay if it went on as in its best moment, for as many moments as the best
    representative can keep up now. Far from what any policy does well, this tells a place where nobody is yet from one where
    nobody is needed. It is a promise, and fades in the course of the training. Whoever falls does not go on: where an
    episode was ever over before its time limit, nothing is promised.

    A representative that is sent to a far place begins as a copy of the one that acts most like the episode, and has
    ``patience`` rollouts. If it does not come near to what the episode paid by then, that was luck, or beyond reach: the
    episode is forgotten together with all that are alike.

    The page "Assignments" says what each part is worth, and when the method fails.

    :param mixing: weight of the newest rollout in the moving average of returns; larger than in EM, since agents rely on
        episodes where averages are young
    :param warm_start: rollouts before the first reassignment
    :param archive_size: number of episodes that are remembered at most, and fewer if they are long, or agents many: 64 MiB
    :param patience: rollouts that a representative has to learn to serve a far place
    :param move_cost: share of what its agents would lose without it that a representative's move to a far place has to gain
        at least, since they have to wait; not asked for where actions are countable, and learned soon
    :param exploration: share of the training in which promises count in full; they fade over as long a time again, and then
        nobody goes sideways any more
    :param stagnation: rollouts without a gain after which a representative imitates what it has not found by itself. Where
        actions are countable, and no more are left of the training, nobody is sent far away
    :param restarts: random sets of episodes from which a better choice is looked for after every rollout, where actions are
        countable, at most: as many as 50 000 divided by k and by the number of agents, 1024 at most; 0: swaps from what is
        there are all
    :param detours: other episodes, the best for its agents, that a representative practises beside the one it imitates, where
        actions are countable; 0: none
    :param sideways: rollouts without a gain after which one that imitates goes over to another episode that is worth as much,
        where actions are countable; 0: never
    :raises ValueError: if an argument is wrong
    """

    takes_features: ClassVar[bool] = True
    needs_trajectories: ClassVar[bool] = True
    copies_rewards: ClassVar[bool] = False

    def __init__(
        self,
        n_agents: int,
        k: int,
        seed: int | None = None,
        mixing: float = 0.3,
        warm_start: int = 5,
        archive_size: int = 1024,
        patience: int = 30,
        move_cost: float = 0.1,
        exploration: float = 0.3,
        stagnation: int = 10,
        restarts: int = 10,
        detours: int = 32,
        sideways: int = 3,
    ):
        super().__init__(n_agents, k, seed, mixing, warm_start)
        self.patience = Count().check("patience", patience)
        self.move_cost = SHARE.check("move_cost", move_cost)
        self.exploration = SHARE.check("exploration", exploration)
        self.stagnation = Count(0).check("stagnation", stagnation)
        self.restarts = Count(0, MANY).check("restarts", restarts)
        self.detours = Count(0, MANY).check("detours", detours)
        self.sideways = Count(0).check("sideways", sideways)
        self._random = np.random.default_rng(seed)
        self.archive = Archive(Count().check("archive_size", archive_size))
        #: Episodes that representatives aim at; ``None`` for one that is judged by what it does
        self.aims: list[Episode | None] = [None] * k
        #: Rollouts that a representative still has to reach a far place
        self.time_left = np.zeros(k, dtype=np.int64)
        # Evenly spread ones could miss whole kinds of agents
        some = np.random.default_rng(seed).choice(n_agents, COMPARED, replace=False) if n_agents > COMPARED else n_agents
        self._compared = np.sort(some) if n_agents > COMPARED else np.arange(n_agents)
        self._weights_of_compared: np.ndarray | None = None
        #: What the group of a representative had at best, the rollouts since then, and whether it imitates since then
        self._best = np.full(k, -np.inf)
        self._stagnant = np.zeros(k, dtype=np.int64)
        self._imitating = np.zeros(k, dtype=bool)
        self._best_moment = 0.0
        #: Share of the training that was done at the last update
        self._progress = 0.0
        #: Whether an episode was ever over before its time limit
        self._falls = False
        self._lessons: list[Lesson] = []

    def connect(self, reward_weights: AgentWeights, value_weights: AgentWeights) -> None:
        super().connect(reward_weights, value_weights)
        self._weights_of_compared = None

    @property
    def _compared_weights(self) -> np.ndarray | None:
        """Weights of the agents by whom episodes are compared, (n_compared, n_rewards), ``None`` if rewards are their own."""
        if self._weights_of_compared is None and self.reward_weights.factored:
            # Not before they are needed: a model that only predicts may not know them
            self._weights_of_compared = self.reward_weights.weights[self._compared].double().cpu().numpy()
        return self._weights_of_compared

    def _utilities(self, rewards: Iterable[np.ndarray]) -> np.ndarray:
        """What rewards, rows of (n_rewards,), are to the agents by whom episodes are compared, (rows, n_compared)."""
        weights = self._compared_weights
        if weights is None:
            return np.array([row[self._compared] for row in rewards], dtype=np.float64).reshape(-1, len(self._compared))
        return np.array([*rewards], dtype=np.float64) @ weights.T

    def record_trajectories(self, trajectories: list[Trajectory], returns: list[np.ndarray]) -> None:
        paid = (np.asarray(of_one, dtype=np.float64) for of_one in returns)
        aims = [aim for aim in self.aims if aim is not None]
        self.archive.add([self._episode(*pair) for pair in zip(paid, trajectories, strict=True)], aims)
        self._falls |= not all(trajectory.truncated for trajectory in trajectories)
        if len(self.q_table) > PRECISE and self.archive.is_full:
            self._forget_some(0.0)  # at once: with many agents, a rollout of short episodes takes as much as its rewards

    def _forget_some(self, n_moments: float) -> None:
        """Keep the episodes that are best for somebody, by what they paid or by what they promise."""
        paid, promised = (self._worth(self.archive.episodes, n) for n in (0.0, n_moments))
        self.archive.keep_best(-np.minimum(best_places(paid), best_places(promised)))

    def _episode(self, returns: np.ndarray, trajectory: Trajectory) -> Episode:
        utilities = self._utilities(returns[None])[0]
        best_off = int(utilities.argmax())
        weights = self._compared_weights
        column = self._compared[best_off]
        rewards = trajectory.reward_vectors[:, column] if weights is None else trajectory.reward_vectors @ weights[best_off]
        self._best_moment = max(self._best_moment, float(rewards.max()))
        return Episode(returns, trajectory, utilities, trajectory.reward_vectors[rewards.argmax()])

    def update(self, progress: float) -> None:
        self._update_q()
        n_moments, self._lessons = 0.0, []
        if self.n_agents > 1 and self.n_updates > self.warm_start and (self._known | (self.time_left > 0)).all():
            own = self._utilities(self.q_rewards.t().cpu().numpy())
            n_moments = self._promised_moments(own, progress)
            self._judge(own, n_moments)
            new = self._swap(own, n_moments, progress)
            self._reassign(n_moments)
            self._teach(own, new)
        self._progress = progress
        if self.archive.is_full:
            self._forget_some(n_moments)

    def _promised_moments(self, own: np.ndarray, progress: float) -> float:
        """For how many moments promises count: as many as the best representative can keep up now, as long as they count."""
        if self._falls or self.exploration == 0.0 or self._best_moment <= 0.0:
            return 0.0
        fade = min(1.0, max(0.0, 2.0 - progress / self.exploration))
        return float(fade * own[self._known].max(initial=0.0) / self._best_moment)

    @property
    def _known(self) -> np.ndarray:
        """True for representatives of whom a return is known, (k,)."""
        return (self.q_weight > 0).cpu().numpy()

    def _worth(self, episodes: list[Episode], n_moments: float) -> np.ndarray:
        """What episodes paid or promise, (episodes, n_compared)."""
        paid = np.array([episode.utilities for episode in episodes]).reshape(-1, len(self._compared))
        if n_moments <= 0.0 or not episodes:
            return paid
        promised = n_moments * self._utilities(episode.moment for episode in episodes)
        return np.where(promised > 0.0, np.maximum(paid, promised), paid)

    def _values(self, own: np.ndarray, n_moments: float) -> np.ndarray:
        """
        What representatives are worth, (k, n_compared): what they do, or what they aim at, but not both. Nobody stays where it
        is and goes elsewhere as well: with both, there would seem to be a representative in either place.
        """
        values = own.copy()
        for j, aim in enumerate(self.aims):
            if aim is not None:
                values[j] = self._worth([aim], n_moments)[0]
        return values

    def _judge(self, own: np.ndarray, n_moments: float) -> None:
        """Let go of episodes that were reached, or that a representative has had its time to come near to."""
        groups = self.served_by.cpu().numpy()[self._compared]
        # Time begins when something is known: episodes may last longer than a rollout
        on_the_way, self.time_left = self.time_left > 0, np.maximum(self.time_left - self._known, 0)
        for j, aim in enumerate(self.aims):
            group = groups == j
            if aim is None or not self._known[j] or not group.any():
                continue
            reached, paid = own[j, group].sum(), aim.utilities[group].sum()
            if reached > self._worth([aim], n_moments)[0, group].sum():
                self.aims[j] = None
            elif on_the_way[j] and not self.time_left[j] and reached < paid - (1.0 - REACHED) * abs(paid):
                self.aims[j] = None
                worth = self._worth(self.archive.episodes, 0.0)
                self.archive.forget(cosines(worth, aim.utilities[None])[:, 0] > ALIKE)

    def _swap(self, own: np.ndarray, n_moments: float, progress: float) -> list[int]:
        """Choose what representatives aim at; returns those that have to become another one first."""
        k, pace, values = self.k, self._pace, self._values(own, n_moments)
        candidates = np.concatenate([values, self._worth(self.archive.episodes, n_moments)])
        alike = cosines(candidates, values)
        # Whoever stays is the most alike of all: episodes that are quite the same do not change places
        alike[np.arange(k), np.arange(k)] = 2.0
        gains, losses = swap_gains(candidates, np.arange(k))
        # Agents of a representative that goes far have to wait; who is on the way is left in peace
        waiting = pace.price(self._rollouts_left(progress))
        lost = np.where(np.isfinite(losses), losses, 0.0)
        costs = np.where(alike >= ALIKE, 0.0, waiting * lost if np.isfinite(waiting) else np.inf)
        costs[:, self.time_left > 0] = np.inf
        costs[np.arange(k), np.arange(k)] = 0.0
        best, best_gain, present = np.arange(k), 0.0, total(candidates, np.arange(k))
        n_searches = min(pace.n_searches, max(1, SEARCHED // (k * len(self._compared))))
        for chosen in searches(candidates, costs, n_searches, self._random):
            # Who does something like it already goes there
            places, who = linear_sum_assignment(-alike[chosen])
            chosen = chosen[places][np.argsort(who)]
            gain = total(candidates, chosen) - present - costs[chosen, np.arange(k)].sum()
            if gain > best_gain + NOTHING * abs(present):
                best, best_gain = chosen, gain
        if self.sideways and progress < 2.0 * self.exploration and (best < k).all():
            self._go_sideways((gains[k:] >= -NOTHING * abs(present)) & (alike[k:] >= ALIKE))
        new = []
        for j in np.flatnonzero(best >= k).tolist():
            self.aims[j] = self.archive.episodes[best[j] - k]
            if alike[best[j], j] < ALIKE:
                new.append(j)
                self.time_left[j] = self.patience
                # What it paid as somebody else says nothing any more
                self.q_table[:, j] = 0.0
                self.q_weight[j] = self.usual_episodes[j] = 0.0
        return new

    def _rollouts_left(self, progress: float) -> float:
        """Of this training; trainings before it count among the updates."""
        step = progress - self._progress
        if progress <= 0.0:
            return np.inf
        if step < 0.0:
            return 0.0  # it has just begun, and after its next rollout its length is known
        return (round(progress / step) if step > 0.0 else int(self.n_updates)) * (1.0 - progress) / progress

    def _go_sideways(self, level: np.ndarray) -> None:
        """
        Let one that gets no further aim at an episode that is worth as much, when it is learned: better ones may be near it.

        :param level: True for episodes that may take the place of a representative, (n_episodes, k)
        """
        stuck = self._imitating & (self.time_left == 0) & (self._stagnant > 0) & (self._stagnant % self.sideways == 0)
        for j in self._random.permutation(np.flatnonzero(stuck)):
            aim, equal = self.aims[j], [self.archive.episodes[i] for i in np.flatnonzero(level[:, j])]
            others = [episode for episode in equal if aim is not None and episode.key != aim.key]
            if others:
                self.aims[j] = others[self._random.integers(len(others))]
                return

    def _reassign(self, n_moments: float) -> None:
        """Every agent, compared or not, goes where it may count on most."""
        pace = self._pace
        relied_on = pace.relied_on(self.time_left > 0, n_moments > 0.0)
        aims = [aim if relied else None for aim, relied in zip(self.aims, relied_on, strict=True)]
        nothing = np.zeros(len(self.q_table))
        paid = np.stack([nothing if aim is None else aim.returns for aim in aims], axis=1)
        moments = np.stack([nothing if aim is None else n_moments * aim.moment.astype(np.float64) for aim in aims], axis=1)
        own, aimed = self.q_rewards, th.tensor([aim is not None for aim in aims], device=self.q_table.device)
        tables = [own, th.as_tensor(paid).to(own), th.as_tensor(moments).to(own)]
        for agents in self.reward_weights.blocks():
            of_own, of_paid, of_moments = (self.reward_weights.of_agents(table, agents) for table in tables)
            worth = th.where(of_moments > 0, th.maximum(of_paid, of_moments), of_paid)
            block = pace.counted_on(th.where(aimed, worth, of_own), of_own, self.q_weight > 0)
            self.served_by[agents] = greedy_representatives(block, self.served_by[agents])
        if bool((th.bincount(self.served_by, minlength=self.k) == 0).any()):
            self.served_by.copy_(fill_empty_groups(self.q, self.served_by))

    def _teach(self, own: np.ndarray, new: list[int]) -> None:
        """Make the lessons of the update that follows: for who is on the way, and for who has stopped learning by itself."""
        pace, groups = self._pace, self.served_by.cpu().numpy()[self._compared]
        self._best[new], self._stagnant[new] = -np.inf, 0
        for j, aim in enumerate(self.aims):
            group = groups == j
            reached = own[j, group].sum() if self._known[j] else -np.inf
            gained = reached > self._best[j] + (PROGRESS * abs(self._best[j]) if np.isfinite(self._best[j]) else 0.0)
            self._best[j] = reached if gained else self._best[j]
            self._stagnant[j] = 0 if gained else self._stagnant[j] + 1
            behind = aim is not None and reached < aim.utilities[group].sum()
            self._imitating[j] = behind and pace.imitates(int(self._stagnant[j]), bool(self._imitating[j]))
            if aim is not None and behind and (self._imitating[j] or self.time_left[j]):
                detours = self.archive.detours(group, aim.trajectory, self.detours) if self._imitating[j] else None
                self._lessons.append(Lesson(j, aim.trajectory, j in new, detours))

    @property
    def _pace(self) -> Pace:
        """How soon an episode is repeated, as its actions tell, and whether they lead to the same again."""
        known = next((episode for episode in (*self.aims, *self.archive.episodes) if episode is not None), None)
        countable = known is not None and np.issubdtype(known.trajectory.actions.dtype, np.integer)
        by_heart = countable and not self.archive.varies
        return ByHeart(self.restarts, self.stagnation) if by_heart else ByPractice(self.patience, self.move_cost)

    def lessons(self) -> list[Lesson]:
        return self._lessons

    def get_run_state(self) -> dict[str, Any]:
        places = {id(episode): place for place, episode in enumerate(self.archive.episodes)}
        return {
            "random": self._random.bit_generator.state,
            "archive": self.archive.get_state(),
            # They learn what it pays to do the same again from the archive, as long as they are in it
            "aims": [places.get(id(aim)) for aim in self.aims],
        }

    def set_run_state(self, state: dict[str, Any]) -> None:
        self._random.bit_generator.state = state["random"]
        self.archive.set_state(state["archive"])
        for j, place in enumerate(state["aims"]):
            self.aims[j] = self.aims[j] if place is None else self.archive.episodes[place]

    def get_extra_state(self) -> dict[str, Any]:
        """What is saved beside buffers: the episodes that representatives aim at, without the archive, which is large."""
        aims = [None if aim is None else aim.state() for aim in self.aims]
        return {
            "aims": aims,
            "time_left": self.time_left.tolist(),
            "best": self._best.tolist(),
            "stagnant": self._stagnant.tolist(),
            "imitating": self._imitating.tolist(),
            "best_moment": self._best_moment,
            "falls": self._falls,
            "varies": self.archive.varies,
            "progress": self._progress,
            "compared": th.as_tensor(self._compared),
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """
        :param state: from :meth:`get_extra_state`
        """
        self.aims = [None if aim is None else Episode.of_state(aim) for aim in state["aims"]]
        self.time_left = np.array(state["time_left"], dtype=np.int64)
        self._best = np.array(state["best"])
        self._stagnant = np.array(state["stagnant"], dtype=np.int64)
        self._imitating = np.array(state["imitating"], dtype=bool)
        self._best_moment = state["best_moment"]
        if "compared" in state:
            self._compared = state["compared"].cpu().numpy()
        elif self.n_agents > COMPARED:
            # Utilities in files of earlier versions are those of agents that were evenly spread
            self._compared = np.linspace(0, self.n_agents - 1, COMPARED).astype(np.int64)
        self._weights_of_compared = None
        # Older files do not have these: what happens next tells
        self._falls = state.get("falls", False)
        self.archive.varies = state.get("varies", False)
        self._progress = state.get("progress", 0.0)
