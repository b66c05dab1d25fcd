"""The folder of a budget curve: a zip file for each model that is finished, and a record of what it is or is to be."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sb3_rmdp import RepresentedPPO
from sb3_rmdp.common.files import read_model_data
from sb3_rmdp.common.locks import locked_folder
from sb3_rmdp.common.report import save_text, to_json
from sb3_rmdp.common.user_files import read_json
from sb3_rmdp.common.whole_files import check_target, make_folder

#: Attribute of models that were trained for a curve, saved with them: their settings
SETTINGS = "budget_settings"


@contextlib.contextmanager
def folder_for(folder: str | Path) -> Iterator[None]:
    """
    Keep a folder for one curve, whose models are trained in here. It is made if it is missing.

    :param folder: the folder
    :raises ValueError: if another curve has it
    :raises OSError: if nothing can be written there
    """
    folder = check_target(Path(folder) / "model.zip").parent
    make_folder(folder)
    with locked_folder(folder, "another budget curve"):
        yield


class ModelFiles:
    """
    Files of one model. The record is there before the training begins, the zip file when it is over.

    The zip file tells its settings itself. The record is for people, and for models of earlier versions, which do not.

    :param folder: where models are; it need not be there yet
    :param k: number of representatives
    :param seed: of the training
    :param settings: plain data, all that the model depends on
    """

    def __init__(self, folder: Path, k: int, seed: int, settings: dict[str, Any]):
        self.model = folder / f"k{k}_seed{seed}.zip"
        self.record = self.model.with_suffix(".json")
        self.k = k
        # As they come back from a file
        self.settings: dict[str, Any] = json.loads(to_json(settings))
        #: Whether there is no need to train it
        self.finished = False

    def check(self) -> bool:
        """
        See whether the model is finished. Files that a power cut has left blank count for nothing.

        :return: whether it is
        :raises ValueError: if it is not the model that is wanted, or damaged
        """
        self.finished = False
        if _is_blank(self.model):
            return False
        if not self.record.exists():
            raise ValueError(f"{self.model} has no record {self.record.name} beside it: choose another folder")
        recorded = None if _is_blank(self.record) else self._recorded()
        try:
            data = read_model_data(self.model, ("k", "n_agents", "assignment_method"), RepresentedPPO.__name__)
        except ValueError as error:
            raise ValueError(f"{error}. To train this model again, remove the file") from error
        if data["k"] != self.k:
            raise ValueError(f"{self.model} has k={data['k']}: it is not the model of its record; choose another folder")
        self._compare(data.get(SETTINGS, recorded))
        self.finished = True
        return True

    def _recorded(self) -> Any:
        try:
            return dict(read_json(self.record, "record of a model")["settings"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self.record} is no record of a model: choose another folder") from error

    def _compare(self, found: Any) -> None:
        if not isinstance(found, Mapping):
            raise ValueError(
                f"{self.model} does not tell its settings, nor does its record {self.record.name}: choose another folder"
            )
        for name in sorted({*found, *self.settings}):
            had, wanted = found.get(name), self.settings.get(name)
            if had != wanted:
                raise ValueError(
                    f"{self.model} was made with {name}={had!r}, and {wanted!r} is asked for: choose another folder, or "
                    "the settings of this one"
                )

    def begin(self) -> None:
        """Write the record."""
        save_text(to_json({"settings": self.settings}), self.record, ".json")

    def save(self, model: RepresentedPPO) -> None:
        """
        Keep the model.

        :param model: that was trained
        """
        setattr(model, SETTINGS, self.settings)
        model.save(self.model)
        self.finished = True


def _is_blank(path: Path) -> bool:
    """Whether there is nothing in a file: it is missing, empty, or nothing but zeros, as after a power cut."""
    return not path.exists() or not path.read_bytes().strip(b"\0")
