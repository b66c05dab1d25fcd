"""Saving and loading of represented models."""

from __future__ import annotations

import io
import pathlib
from collections.abc import Iterable
from typing import Any, TypeVar

import torch as th
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.type_aliases import GymEnv

from sb3_rmdp.common.assignment import Assignment, assignment_class, make_assignment
from sb3_rmdp.common.files import model_file, read_model_data, save_whole
from sb3_rmdp.common.welfare import Welfare
from sb3_rmdp.vec_env import represented_vec_env

#: End of a message about what cannot be changed
NEW_MODEL = "leave it out, or train a new model; this one was saved with"

SelfRepresented = TypeVar("SelfRepresented", bound="SavedRepresented")


class SavedRepresented(OnPolicyAlgorithm):
    """The part of a represented algorithm that writes and reads zip files: SB3's format, with the assignment in it."""

    k: int
    n_agents: int
    assignment: Assignment
    assignment_method: str | type[Assignment]
    assignment_kwargs: dict[str, Any] | None
    welfare: Welfare
    #: With which it was saved; ``None`` before that
    sb3_rmdp_version: str | None = None
    #: Mean returns last seen of each representative, (k, n_rewards); empty before the first training
    _mean_returns: th.Tensor

    def _excluded_save_params(self) -> list[str]:
        own = ["assignment", "welfare", "reward_weights", "_balanced", "_return_tracker", "_recorder"]
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

        :param path: file, ".zip" is added where there is no suffix; or an open file
        :param exclude: attributes to leave out
        :param include: attributes to save that would be left out
        """
        from sb3_rmdp import __version__  # not at the top: the package imports this module

        self.sb3_rmdp_version = __version__
        if isinstance(path, (str, pathlib.Path)):
            save_whole(path, lambda file: super(SavedRepresented, self).save(file, exclude, include))
        else:
            super().save(path, exclude, include)

    @classmethod
    def load(
        cls: type[SelfRepresented],
        path: str | pathlib.Path | io.BufferedIOBase,
        env: GymEnv | str | None = None,
        device: th.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        **kwargs: Any,
    ) -> SelfRepresented:
        """
        See SB3; the environment, if there is one, is treated as in the constructor, and must have the model's agents.

        :param path: file, with or without ".zip", or an open file
        :param env: as for the constructor; not needed to predict
        :param device: device of the model
        :param custom_objects: replacements of saved attributes
        :param print_system_info: print on which system the model was saved
        :param force_reset: reset the environment before training goes on
        :param kwargs: arguments of the constructor that are to change, but not ``k`` or ``assignment``
        :return: the model
        :raises ValueError: if the file is broken or holds another kind of model, or the environment has other agents
        """
        if isinstance(path, (str, pathlib.Path)):
            path = model_file(path)
        if "welfare" in kwargs:
            kwargs["welfare_method"] = kwargs.pop("welfare")
        data = read_model_data(path, ("k", "n_agents", "assignment_method"), cls.__name__)
        k, assignment = kwargs.pop("k", data["k"]), kwargs.pop("assignment", None)
        if env is not None:
            env = represented_vec_env(env, data["k"])
        model = super().load(path, env, device, custom_objects, print_system_info, force_reset, **kwargs)
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
