"""Saving and loading of represented models."""

from __future__ import annotations

import contextlib
import copy
import io
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import torch as th
from stable_baselines3.common.type_aliases import GymEnv

from sb3_rmdp.common.assignment import ASSIGNMENTS, Assignment, assignment_class, make_assignment
from sb3_rmdp.common.attributes import (
    PICKLE,
    cannot_learn,
    from_file,
    is_remembered,
    plain,
    remember,
    to_file,
    warn_of,
)
from sb3_rmdp.common.buffers import VectorRewardDictRolloutBuffer, VectorRewardRolloutBuffer
from sb3_rmdp.common.files import model_file, read_model_data, save_whole
from sb3_rmdp.common.model_arguments import ARGUMENTS, kept_as
from sb3_rmdp.common.policies import (
    RepresentedActorCriticCnnPolicy,
    RepresentedActorCriticPolicy,
    RepresentedMultiInputActorCriticPolicy,
)
from sb3_rmdp.common.run_state import RUN_STATE, ResumableRun, add_run_state, read_run_state
from sb3_rmdp.vec_env import represented_vec_env

#: End of a message about what cannot be changed
NEW_MODEL = "leave it out, or train a new model; this one was saved with"

# For readers that unpickle by torch's list of what is harmless
th.serialization.add_safe_globals(
    [
        *ASSIGNMENTS.values(),
        RepresentedActorCriticPolicy,
        RepresentedActorCriticCnnPolicy,
        RepresentedMultiInputActorCriticPolicy,
        VectorRewardRolloutBuffer,
        VectorRewardDictRolloutBuffer,
    ]
)

SelfRepresented = TypeVar("SelfRepresented", bound="SavedRepresented")


class SavedRepresented(ResumableRun):
    """The part of a represented algorithm that writes and reads zip files: SB3's format, with the assignment in it."""

    k: int
    n_agents: int
    assignment_method: str | type[Assignment]
    assignment_kwargs: dict[str, Any] | None
    #: With which it was saved; ``None`` before that
    sb3_rmdp_version: str | None = None
    #: Schedules that were not loaded, since the file is not trusted: the model acts, but cannot learn
    _left_out: Sequence[str] = ()

    def _excluded_save_params(self) -> list[str]:
        own = ["assignment", "welfare", "reward_weights", "_balanced", "_return_tracker", "_recorder", "_left_out"]
        own += ["_run_state", "_rollout_start", "_run_callback", "_at_end", "_log_interval", "_unseen_ends"]
        return [*super()._excluded_save_params(), *own]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        state_dicts, variables = super()._get_torch_save_params()
        own = ["assignment"] if self.assignment.optimizer is None else ["assignment", "assignment.optimizer"]
        # No state dict: SB3 wants all of these to be in a file, and files of earlier versions lack the returns
        return [*state_dicts, *own], [*variables, "_mean_returns", "welfare.state"]

    def save(
        self,
        path: str | pathlib.Path | io.BufferedIOBase,
        exclude: Iterable[str] | None = None,
        include: Iterable[str] | None = None,
    ) -> None:
        """
        See SB3; the file appears under its name when it is complete, and a file that was there stays until then.

        It holds where the training is as well, see :mod:`sb3_rmdp.common.run_state`. Written within a rollout, it holds where
        the training was when the rollout began, and ``learn(reset_num_timesteps=False)`` plays the rollout again.

        Attributes are plain data where they can be: see :mod:`sb3_rmdp.common.plain_data`. What cannot, such as a function
        of the user's, is pickled as SB3 does it, and :meth:`load` asks for ``trusted=True``.

        :param path: file, ".zip" is added where there is no suffix; or an open file
        :param exclude: attributes to leave out; ``["run_state"]`` for a smaller file, from which a training goes on with new
            episodes and other random numbers
        :param include: attributes to save that would be left out
        """
        from sb3_rmdp import __version__  # not at the top: the package imports this module

        if self._left_out:
            raise ValueError(cannot_learn(self._left_out))
        self.sb3_rmdp_version = __version__
        # SB3 writes the attributes of the object that it is called on: one with the same parts, and attributes as they are
        # to stand in the file
        written = copy.copy(self)
        torch_names = {name.split(".")[0] for names in self._get_torch_save_params() for name in names}
        left_out = torch_names | (set(self._excluded_save_params()) - set(include or ()))
        attributes, pickled = to_file({name: item for name, item in vars(self).items() if name not in left_out})
        written.__dict__.update(attributes)

        excluded = set(exclude or ())
        run_state = b"" if RUN_STATE in excluded else self.packed_run_state()

        def write(file: io.BufferedIOBase) -> None:
            content = io.BytesIO()
            super(SavedRepresented, written).save(content, excluded, include)
            add_run_state(content, run_state)
            if pickled:
                remember(content.getvalue())
            file.write(content.getbuffer())

        if isinstance(path, (str, pathlib.Path)):
            save_whole(path, write)
        else:
            write(path)

    @classmethod
    def load(
        cls: type[SelfRepresented],
        path: str | pathlib.Path | io.BufferedIOBase,
        env: GymEnv | str | None = None,
        device: th.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        trusted: bool = False,
        **kwargs: Any,
    ) -> SelfRepresented:
        """
        See SB3; the environment, if there is one, is treated as in the constructor, and must have the model's agents.

        Nothing in the file is executed unless it is trusted. Files of plain data, which :meth:`save` writes where it can, need
        no trust, and a file that this program has written itself has it. Others that hold pickled objects need it: those with
        functions or local classes of the user's, and those of earlier versions of sb3_rmdp. Schedules that are pickled are
        left out, with a warning: such a model acts, but does not learn.

        :param path: file, with or without ".zip", or an open file
        :param env: as for the constructor; not needed to predict
        :param device: device of the model
        :param custom_objects: replacements of saved attributes
        :param print_system_info: print on which system the model was saved
        :param force_reset: reset the environment before training goes on
        :param trusted: unpickle what the file holds beside plain data, which runs any code that its author put there
        :param kwargs: arguments of the constructor that are to change, but not ``k`` or ``assignment``
        :return: the model
        :raises ValueError: if the file is broken or holds another kind of model, needs trust that it is not given, or the
            environment has other agents
        """
        device = ARGUMENTS["device"].check("device", device)
        with contextlib.ExitStack() as stack:
            # One open file: it stays the same when another one takes its name
            named = isinstance(path, (str, pathlib.Path))
            file: Any = stack.enter_context(model_file(path).open("rb")) if named else path  # type: ignore[arg-type]
            data = read_model_data(file, ("k", "n_agents", "assignment_method"), cls.__name__, path)
            k, assignment = kwargs.pop("k", data["k"]), kwargs.pop("assignment", None)
            kwargs = kept_as(kwargs, data)
            known = {**_same_assignment(data, assignment), **(custom_objects or {})}
            attributes = from_file(data, known, trusted or _is_own(file, data), str(path))
            if env is not None:
                env = represented_vec_env(env, data["k"])
            model = super().load(file, env, device, attributes.values, print_system_info, force_reset, **kwargs)
            model._run_state = read_run_state(file)
        model._left_out = [name for name in attributes.left_out if name not in kwargs]
        warn_of(model._left_out, str(path))
        # By name: a class of one's own is another object after it was unpickled
        if assignment is not None and assignment_class(assignment).__name__ != type(model.assignment).__name__:
            raise ValueError(
                f"assignment={assignment!r} cannot be changed on loading: {NEW_MODEL} {model.assignment_method!r}"
            )
        if k != model.k:
            raise ValueError(f"k={k!r} cannot be changed on loading: {NEW_MODEL} {model.k}")
        model.welfare.restore()
        if kwargs.get("assignment_kwargs") is not None:
            model._set_assignment_optimizer()
        return model

    def _set_assignment_optimizer(self) -> None:
        """Give the assignment's optimizer the settings of ``assignment_kwargs``; its state brought those of the file along."""
        settings = make_assignment(self.assignment_method, self.n_agents, self.k, self.seed, self.assignment_kwargs).optimizer
        if self.assignment.optimizer is not None and settings is not None:
            for group, wanted in zip(self.assignment.optimizer.param_groups, settings.param_groups, strict=True):
                group.update({name: value for name, value in wanted.items() if name != "params"})


def _is_own(file: io.BufferedIOBase, data: dict[str, Any]) -> bool:
    """Whether a file with pickles was written by this program itself."""
    if not any(isinstance(content, dict) and PICKLE in content for content in data.values()):
        return False
    found = is_remembered(file.read())
    file.seek(0)
    return found


def _same_assignment(data: dict[str, Any], assignment: str | type[Assignment] | None) -> dict[str, Any]:
    """The user's own assignment in the place of the file's reference to it, if it has the same name."""
    saved = plain(data["assignment_method"])
    name = str(saved.get("name")) if isinstance(saved, dict) else saved
    if assignment is None or ":" not in name or assignment_class(assignment).__qualname__ != name.partition(":")[2]:
        return {}
    return {"assignment_method": assignment}
