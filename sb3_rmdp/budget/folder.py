"""The folder of a budget curve: a zip file for each model that is finished, and a record of what it is or is to be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sb3_rmdp import RepresentedPPO
from sb3_rmdp.common.files import read_model_data
from sb3_rmdp.common.report import save_text, to_json


class ModelFiles:
    """
    Files of one model. The record is there before the training begins, the zip file when it is over.

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

    def check(self) -> bool:
        """
        :return: whether the model is finished
        :raises ValueError: if it is not the one that is wanted, or broken
        """
        if not self.record.exists():
            if self.model.exists():
                raise ValueError(f"{self.model} has no record {self.record.name} beside it: choose another folder")
            return False
        try:
            found = json.loads(self.record.read_text(encoding="utf-8"))["settings"]
            items = dict(found)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self.record} is no record of a model: choose another folder") from error
        if self.model.exists():
            for name in sorted({*items, *self.settings}):
                had, wanted = items.get(name), self.settings.get(name)
                if had != wanted:
                    raise ValueError(
                        f"{self.model} was made with {name}={had!r}, and {wanted!r} is asked for: choose another folder, or "
                        "the settings of this one"
                    )
            data = read_model_data(self.model, ("k", "n_agents", "assignment_method"), RepresentedPPO.__name__)
            if data["k"] != self.k:
                raise ValueError(f"{self.model} has k={data['k']}: it is not the model of its record; choose another folder")
        return self.model.exists()

    def begin(self) -> None:
        """Write the record."""
        save_text(to_json({"settings": self.settings}), self.record, ".json")
