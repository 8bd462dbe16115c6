"""The clip and the bundle that ship with the package, so that a stream runs out of the box."""

from pathlib import Path

CLIP_DIR = Path(__file__).parent / "clip"
CLIP = CLIP_DIR / "clip.mp4"
BUNDLE_DIR = Path(__file__).parent / "bundle"
