"""Representatives as ONNX: one graph for all of them, and a head for each."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import nn
from torch.nn import functional as F

from sb3_rmdp.common.normalization import WHOLE
from sb3_rmdp.export.normalization import parts

if TYPE_CHECKING:
    import onnx
    import onnxruntime

#: Names of what goes into the graph and comes out
OBSERVATION, ACTION = "observation", "action"

#: Names of the head's parameters, which are inputs of the graph until there is a head
HEAD = ("head.weight", "head.bias")

#: What makes ONNX files, and what runs them
WRITERS, RUNNER = ("onnx", "onnxscript", "onnxruntime"), "onnxruntime"


def check_installed(*packages: str) -> None:
    """
    :param packages: names
    :raises ImportError: if one is not installed; says how it gets there
    """
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise ImportError(
            f'ONNX files need {" and ".join(missing)}, not installed here: pip install "sb3_rmdp[export]", or do without them '
            '(onnx=False, --no-onnx; backend="sb3" to load)'
        )


def input_name(key: str) -> str:
    """
    >>> input_name("camera"), input_name("")
    ('observation.camera', 'observation')

    :param key: key of a ``Dict`` of observations; empty if they are none
    :return: the graph's input; keys alone might be names within the graph
    """
    return OBSERVATION if key == WHOLE else f"{OBSERVATION}.{key}"


class _Actor(nn.Module):
    """
    From raw observations to the likeliest action, as ``predict`` gives it.

    :param policy: SB3's; its head is not looked at
    """

    low: th.Tensor
    high: th.Tensor

    def __init__(self, policy: ActorCriticPolicy):
        super().__init__()
        self.policy = policy
        self.space = space = policy.action_space
        if isinstance(space, spaces.Box):
            # numpy's rule for clipping: bounds of 64 bits make actions of 64 bits
            dtype = np.result_type(np.float32, space.low.dtype)
            self.register_buffer("low", th.tensor(space.low.astype(dtype)))
            self.register_buffer("high", th.tensor(space.high.astype(dtype)))

    def forward(self, weight: th.Tensor, bias: th.Tensor, *observations: th.Tensor) -> th.Tensor:
        policy = self.policy
        keys = parts(policy.observation_space)
        obs = dict(zip(keys, observations, strict=True)) if WHOLE not in keys else observations[0]
        features = policy.extract_features(obs)
        latent = policy.mlp_extractor.forward_actor(features[0] if isinstance(features, tuple) else features)
        return self.likeliest(F.linear(latent, weight, bias))

    def likeliest(self, out: th.Tensor) -> th.Tensor:
        """
        :param out: outputs of the head, (batch, outputs)
        :return: mode of the distribution that they are parameters of, (batch, *action shape)
        """
        if isinstance(self.space, spaces.Discrete):
            return out.argmax(dim=1)
        if isinstance(self.space, spaces.MultiDiscrete):
            return th.stack([logits.argmax(dim=1) for logits in out.split(self.space.nvec.tolist(), dim=1)], dim=1)
        if isinstance(self.space, spaces.MultiBinary):
            return out.sigmoid().round()
        actions = (out.tanh() if self.policy.squash_output else out).unflatten(1, self.space.shape or (1,))
        if self.policy.squash_output:
            return self.low + 0.5 * (actions + 1.0) * (self.high - self.low)
        return th.minimum(th.maximum(actions, self.low), self.high)


def trace(policy: ActorCriticPolicy) -> onnx.ModelProto:
    """
    :param policy: SB3's
    :return: its graph, with the parameters of the head, :data:`HEAD`, as inputs
    :raises ValueError: if ONNX cannot express it
    """
    keys = parts(policy.observation_space)
    head = policy.action_net
    assert isinstance(head, nn.Linear)
    # Of three observations: torch takes sizes 0 and 1 for constants. Zeros lie in all discrete spaces
    examples = [th.as_tensor(np.zeros((3, *(part.shape or ())), dtype=part.dtype)) for part in keys.values()]
    batch = th.export.Dim("batch")
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    try:
        # It tells of its own deprecations, and of packages that it could do more with
        logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), th.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")
            program = th.onnx.export(
                _Actor(policy).eval(),
                (head.weight.detach(), head.bias.detach(), *examples),
                dynamo=True,
                verbose=False,
                input_names=[*HEAD, *map(input_name, keys)],
                output_names=[ACTION],
                dynamic_shapes=(None, None, tuple({0: batch} for _ in keys)),
            )
    except Exception as error:  # from a features extractor of the user's own anything may come
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"torch cannot express this policy in ONNX ({reason}): leave ONNX out, with onnx=False or --no-onnx"
        ) from error
    finally:
        logger.setLevel(level)
    assert program is not None
    return program.model_proto


def with_head(graph: onnx.ModelProto, head: nn.Module) -> bytes:
    """
    :param graph: made by :func:`trace`
    :param head: last layer of an actor
    :return: an ONNX file of the two
    """
    import onnx
    from onnx import numpy_helper

    assert isinstance(head, nn.Linear)
    model = onnx.ModelProto()
    model.CopyFrom(graph)
    inputs = [entry for entry in model.graph.input if entry.name not in HEAD]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    for name, parameter in zip(HEAD, (head.weight, head.bias), strict=True):
        model.graph.initializer.append(numpy_helper.from_array(parameter.detach().numpy(), name))
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def open_session(content: bytes) -> onnxruntime.InferenceSession:
    """
    :param content: an ONNX file
    :return: runs it
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # Small networks are fastest on one thread
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def run_session(session: onnxruntime.InferenceSession, space: spaces.Space, obs: Any) -> np.ndarray:
    """
    :param session: runs an ONNX file
    :param space: of observations
    :param obs: a batch of them, arrays (batch, ...) or a dict of such
    :return: the likeliest actions, (batch, *action shape)
    """
    keys = parts(space)
    batches = {WHOLE: obs} if WHOLE in keys else obs
    feed = {input_name(key): np.asarray(batches[key]).astype(part.dtype, copy=False) for key, part in keys.items()}
    return np.asarray(session.run([ACTION], feed)[0])
