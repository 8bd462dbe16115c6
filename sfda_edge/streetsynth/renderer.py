"""Draw a street scene and its label map with panda3d, without a window."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from panda3d.core import (
    AmbientLight,
    DirectionalLight,
    Fog,
    GraphicsOutput,
    NodePath,
    PerspectiveLens,
    Texture,
    TransparencyAttrib,
    loadPrcFileData,
)

from sfda_edge.errors import DataError
from sfda_edge.streetsynth.lens import paint_sky, photograph
from sfda_edge.streetsynth.plan import draw_plan
from sfda_edge.streetsynth.stage import Label, Stage
from sfda_edge.streetsynth.street import StreetBuilder
from sfda_edge.streetsynth.styles import Style
from sfda_edge.streetsynth.textures import fractal_noise
from sfda_edge.streetsynth.traffic import Traffic

IMAGE_HW = (360, 480)
SUPERSAMPLING = 2
_SKY_KEY = (0, 255, 0)  # a colour that no surface has, replaced by a painted sky


@dataclass(frozen=True)
class Pose:
    """Where the camera stands and looks, and how fast it drives (metres per frame)."""

    x: float
    z: float
    heading_deg: float
    pitch_deg: float
    field_of_view_deg: float
    speed: float


def draw_pose(random: np.random.Generator, road_width: float) -> Pose:
    """Choose a camera on (mostly) the right-hand lane."""
    lane = road_width / 4 * random.uniform(0.4, 1.2)
    return Pose(
        x=lane * (-1 if random.random() < 0.25 else 1),
        z=random.uniform(1.15, 1.65),
        heading_deg=random.normal() * 3,
        pitch_deg=random.uniform(-4, 2),
        field_of_view_deg=random.uniform(45, 68),
        speed=random.uniform(0.2, 0.8),
    )


class Renderer:
    """Draws scenes one after the other; get it by ``the_renderer``."""

    def __init__(self) -> None:
        loadPrcFileData(
            "",
            "load-display p3headlessgl\naudio-library-name null\nwindow-type offscreen\n"
            "win-size 64 64\ntextures-power-2 none\nnotify-level error\nprint-pipe-types false\n",
        )
        from direct.showbase.ShowBase import ShowBase  # reads the settings above when imported

        try:
            self.base = ShowBase(windowType="offscreen")
        except Exception as error:
            raise DataError(
                f"panda3d could not open an off-screen buffer: {error}. It needs EGL and a driver; "
                "on Debian: apt-get install libegl1 libgl1-mesa-dri"
            ) from error
        height, width = IMAGE_HW
        self.world = NodePath("world")
        self.rig = self.world.attachNewNode("rig")
        self.colour_buffer, colour_camera = self._camera(
            "colour", width * SUPERSAMPLING, height * SUPERSAMPLING
        )
        self.label_buffer, label_camera = self._camera("label", width, height)
        self.lenses = [colour_camera.node().getLens(), label_camera.node().getLens()]
        self.colour_buffer.setClearColor((*(c / 255 for c in _SKY_KEY), 1))
        self.label_buffer.setClearColor((_grey(Label.SKY), 0, 0, 1))
        self._paint_labels(label_camera)

    def _camera(self, name: str, width: int, height: int) -> tuple[GraphicsOutput, NodePath]:
        buffer = self.base.win.makeTextureBuffer(name, width, height, Texture(), True)
        buffer.setClearColorActive(True)
        camera = self.base.makeCamera(buffer, scene=self.world)
        lens = PerspectiveLens()
        lens.setFilmSize(4, 3)
        lens.setNearFar(0.3, 400)
        camera.node().setLens(lens)
        camera.reparentTo(self.rig)
        return buffer, camera

    def _paint_labels(self, camera: NodePath) -> None:
        """The label camera draws each node flat, in its class's grey."""
        camera.node().setTagStateKey("label")
        for label in Label:
            flat = NodePath("flat")
            flat.setTextureOff(1000)
            flat.setLightOff(1000)
            flat.setFogOff(1000)
            flat.setTransparency(TransparencyAttrib.MNone, 1000)
            flat.setColor((_grey(label), 0, 0, 1), 1000)
            camera.node().setTagState(str(int(label)), flat.getState())

    def open_scene(self, seed: int, style: Style) -> Scene:
        """Build scene number ``seed``; the same seed is the same street in every style."""
        return Scene(self, seed, style)

    def grab(self, buffer: GraphicsOutput) -> np.ndarray:
        """The buffer's picture as (H, W, 3) uint8 RGB, top row first."""
        texture = buffer.getTexture()
        raw = np.frombuffer(texture.getRamImageAs("RGB"), np.uint8)
        return raw.reshape(texture.getYSize(), texture.getXSize(), 3)[::-1]


def _grey(label: Label) -> float:
    return (int(label) * 20 + 10) / 255


class Scene:
    """One street in one style; ``frames`` drives through it."""

    def __init__(self, renderer: Renderer, seed: int, style: Style) -> None:
        self.renderer, self.style = renderer, style
        layout = np.random.default_rng([seed, 0])
        self.appearance = np.random.default_rng([seed, 1])
        self.root = renderer.world.attachNewNode("scene")
        self.stage = Stage(self.root)
        plan = draw_plan(layout)
        StreetBuilder(self.stage, plan, style, layout).build()
        Traffic(self.stage, plan, layout).build()
        self.pose = draw_pose(layout, plan.road_width)
        self._light()
        for lens in renderer.lenses:
            across = np.radians(self.pose.field_of_view_deg)
            upright = 2 * np.arctan(np.tan(across / 2) * IMAGE_HW[0] / IMAGE_HW[1])
            lens.setFov(self.pose.field_of_view_deg, float(np.degrees(upright)))

    def __enter__(self) -> Scene:
        return self

    def __exit__(self, *error: object) -> None:
        self.renderer.world.clearLight()
        self.renderer.world.clearFog()
        self.root.removeNode()

    def _light(self) -> None:
        style, draw, world = self.style, self.appearance, self.renderer.world
        ambient, sun, fog = AmbientLight("ambient"), DirectionalLight("sun"), Fog("fog")
        ambient.setColor((*(draw.uniform(*style.ambient) * np.array(style.ambient_tint)), 1))
        sun.setColor((*(draw.uniform(*style.sun) * np.array(style.sun_tint)), 1))
        turn, height = draw.uniform(0, 360), draw.uniform(*style.sun_height_deg)
        for light in (ambient, sun):
            node = self.root.attachNewNode(light)
            node.setHpr(turn, -height, 0)
            world.setLight(node)
        self.sky = style.skies[draw.integers(len(style.skies))]
        self.clouds = fractal_noise(draw, 256) * draw.uniform(*style.clouds)
        fog.setColor(*(c / 255 for c in self.sky[1]))
        fog.setExpDensity(draw.uniform(*style.fog_density))
        world.setFog(fog)

    def _drive(self, index: int) -> None:
        for node, speed in self.stage.moving if index else ():
            node.setY(node.getY() + speed)
        pose, rig = self.pose, self.renderer.rig
        rig.setPos(pose.x + 0.02 * np.sin(index * 0.5), index * pose.speed, pose.z)
        sway = 0.15 * index * np.sign(pose.heading_deg)
        rig.setHpr(
            pose.heading_deg + float(np.clip(sway, -3, 3)), pose.pitch_deg + 0.2 * np.sin(index), 0
        )

    def frame(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw the next frame: image (360, 480, 3) uint8 RGB and label map (360, 480) uint8."""
        self._drive(index)
        self.renderer.base.graphicsEngine.renderFrame()
        picture = self.renderer.grab(self.renderer.colour_buffer)
        labels = np.rint((self.renderer.grab(self.renderer.label_buffer)[..., 0] - 10.0) / 20)
        sky = np.all(np.abs(picture.astype(np.int16) - _SKY_KEY) < 6, axis=-1)
        painted = paint_sky(picture.astype(np.float32), sky, self.sky, self.clouds)
        height, width = IMAGE_HW
        small = cv2.resize(
            painted.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA
        )
        return photograph(small, self.style.lens, self.appearance), labels.astype(np.uint8)


@cache
def the_renderer() -> Renderer:
    """The renderer of this process: panda3d allows one.

    Raises:
        DataError: no off-screen buffer can be opened.
    """
    return Renderer()
