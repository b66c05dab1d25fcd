"""What an export would not act like is refused, and named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.distributions import DiagGaussianDistribution

from sb3_rmdp.common.policies import ConditionedMlpExtractor, RepresentedActorCriticPolicy
from sb3_rmdp.export.stock import check_exportable
from tests.export.models import FLOATS, untrained

Change = Callable[[RepresentedActorCriticPolicy], Any]


class Doubled(ConditionedMlpExtractor):
    """May do anything."""


class Squashed(DiagGaussianDistribution):
    """May do anything."""


def replace(policy: RepresentedActorCriticPolicy) -> None:
    policy.act = lambda *args: None  # type: ignore


CHANGES: dict[str, Change] = {
    "the policy has a hook or a method": replace,
    "mlp_extractor.policy_net.0 has a hook": lambda policy: policy.mlp_extractor.policy_net[0].register_forward_hook(print),
    "mlp_extractor is a Doubled": lambda policy: setattr(policy.mlp_extractor, "__class__", Doubled),
    "action_dist is a Squashed": lambda policy: setattr(policy, "action_dist", Squashed(2)),
}


@pytest.mark.parametrize("message", CHANGES)
def test_policies_that_act_in_other_ways_than_their_networks_tell_are_refused(message: str) -> None:
    policy = untrained("MlpPolicy", FLOATS, spaces.Box(-1.0, 1.0, (2,), np.float32)).policy
    check_exportable(policy)
    CHANGES[message](policy)
    with pytest.raises(ValueError, match=f"{message}.*cannot be exported"):
        check_exportable(policy)
