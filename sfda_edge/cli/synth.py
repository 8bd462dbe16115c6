"""sfda-edge synth: render StreetSynth images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sfda_edge.errors import DataError
from sfda_edge.runs.progress import progress_bar


@dataclass(frozen=True)
class SynthRequest:
    """What the user asked for.

    Attributes:
        style: a name in ``STYLES``.
        first, count: which scenes.
        frames: frames of each scene.
        out_dir: a new or empty folder.
        clip: render one video instead of single images.
    """

    style: str
    first: int
    count: int
    frames: int
    out_dir: Path
    clip: bool = False


def run(request: SynthRequest) -> int:
    """Render, and return the number of frames.

    Raises:
        DataError: panda3d is missing, cannot draw here, or the folder is not empty.
    """
    try:
        from sfda_edge.streetsynth.render import SceneRange, render_clip, render_images
    except ModuleNotFoundError as error:
        if error.name not in ("panda3d", "direct"):
            raise
        raise DataError("rendering needs panda3d: pip install 'sfda-edge[synth]'") from None
    out_dir = request.out_dir
    if out_dir.exists() and (not out_dir.is_dir() or any(out_dir.iterdir())):
        raise DataError(f"{request.out_dir} is not empty; choose another --out")
    scenes = SceneRange(request.first, request.count, request.frames)
    render = render_clip if request.clip else render_images
    bar = progress_bar(f"render {request.style}", request.count)
    return render(request.style, scenes, request.out_dir, progress=bar)
