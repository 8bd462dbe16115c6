"""Where the data and the model that ship with the package lie."""

from pathlib import Path

_FOLDER = Path(__file__).parent.parent / "streetsynth" / "pack"
SOURCE_DIR = _FOLDER / "source"
TARGET_DIR = _FOLDER / "target"
MODEL_DIR = Path(__file__).parent / "model"
