"""Protocol: what a published row adapts, and what it reports."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sfda_edge.data.datasets import DATASETS
from sfda_edge.errors import RecipeError
from sfda_edge.recipes.published import RecipeModel, recipe_model
from sfda_edge.recipes.recipe import parse_recipe, require
from sfda_edge.toml_file import read_toml

_FOLDER = Path(__file__).parents[1] / "protocols"


@dataclass(frozen=True, kw_only=True)
class Published:
    """Figures of a paper, in per cent; None where it reports none.

    Attributes:
        source_miou: of the source model.
        miou: of the adapted model, over all classes.
        iou: of some or all classes.
    """

    source_miou: float | None = None
    miou: float | None = None
    iou: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Mean:
    """Another mean that the literature reports.

    Attributes:
        name: as the table has it.
        without: classes that do not count.
        published: in per cent.
        published_source: of the source model.
    """

    name: str
    without: tuple[str, ...]
    published: float | None = None
    published_source: float | None = None


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """One published row.

    Attributes:
        recipe: of ``recipes/published``: method, network, classes and input size.
        source, target, scored: ``DATASET/SPLIT`` of the source's training, of the images that are
            adapted to, and of those that are scored.
        test: of images whose labels a server holds back; None for none.
        source_input_hw: what the source model is trained at, where its images have another shape
            than the target's; None for the recipe's input size.
        means: beside the mean over all classes.
        published: the figures.
    """

    recipe: str
    source: str
    target: str
    scored: str
    test: str | None = None
    source_input_hw: tuple[int, int] | None = None
    means: tuple[Mean, ...] = ()
    published: Published = field(default_factory=Published)

    def __post_init__(self) -> None:
        for split in (self.source, self.target, self.scored, self.test or self.scored):
            name, _, part = split.partition("/")
            known = name in DATASETS and part in DATASETS[name].splits
            require(known, f"{split} is no split of a data set")

    @property
    def recipe_name(self) -> str:
        """As ``load_recipe`` takes it."""
        return f"published/{self.recipe}"

    @property
    def model(self) -> RecipeModel:
        """The network, its classes and its input size."""
        return recipe_model(self.recipe_name)


def protocol_names() -> list[str]:
    """All protocols."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def load_protocol(name: str) -> Protocol:
    """A protocol by name.

    Raises:
        RecipeError: there is none, or its file is wrong.
    """
    if name not in protocol_names():
        raise RecipeError(f"unknown protocol '{name}'; known: {', '.join(protocol_names())}")
    return parse_recipe(read_toml(_FOLDER / f"{name}.toml"), Protocol, title=f"protocol '{name}'")
