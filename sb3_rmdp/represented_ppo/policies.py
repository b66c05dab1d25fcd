"""Names of the policies of RepresentedPPO."""

from sb3_rmdp.common.policies import (
    RepresentedActorCriticCnnPolicy,
    RepresentedActorCriticPolicy,
    RepresentedMultiInputActorCriticPolicy,
)

MlpPolicy = RepresentedActorCriticPolicy
CnnPolicy = RepresentedActorCriticCnnPolicy
MultiInputPolicy = RepresentedMultiInputActorCriticPolicy
