"""What a suite claims of a row: it changes no number, and so is in no key; boards show it as a claim."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from emobench.errors import SuiteError

FIELDS = ("claimed", "trained_on", "labels_confirmed")
_EXAMPLES = {
    "claimed": 'claimed = { accuracy = 0.7116, source = "its paper, table 3" }',
    "trained_on": 'trained_on = "AffectNet, its training split"',
    "labels_confirmed": "labels_confirmed = true",
}


class Claim(BaseModel):
    """Figures that somebody reported, and where."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)

    accuracy: float | None = Field(default=None, ge=0, le=1)
    macro_f1: float | None = Field(default=None, ge=0, le=1)
    source: str = Field(min_length=1)

    @property
    def figures(self) -> dict[str, float]:
        """Those that are given, by metric."""
        both = {"accuracy": self.accuracy, "macro_f1": self.macro_f1}
        return {name: value for name, value in both.items() if value is not None}


class Declared(BaseModel):
    """What is claimed of a row.

    Attributes:
        trained_on: of an outside model, what it was trained on; None: that is not known.
        labels_confirmed: that the order of its classes is right, whatever an audit says.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    claimed: Claim | None = None
    trained_on: str | None = Field(default=None, min_length=1)
    labels_confirmed: bool = False


def declared_of(where: str, table: dict[str, Any]) -> dict[str, Any]:
    """Take what is claimed of a row out of its table, as plain values.

    Raises:
        SuiteError: it is no such claim.
    """
    given = {name: table.pop(name) for name in FIELDS if name in table}
    try:
        found = Declared(**given)
    except ValidationError as error:
        first = error.errors()[0]
        place, name = ".".join(map(str, first["loc"])), str(first["loc"][0])
        raise SuiteError(f"{where}: {place}: {first['msg']}. It is written as {_EXAMPLES[name]}") from None
    if found.claimed is not None and not found.claimed.figures:
        raise SuiteError(f"{where}: claimed names neither accuracy nor macro_f1: {_EXAMPLES['claimed']}")
    return found.model_dump(exclude_defaults=True)
