"""Styles of the same street: light, weather and lens, never geometry."""

from __future__ import annotations

from dataclasses import dataclass

Range = tuple[float, float]
Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Lens:
    """Effects of camera and weather on a rendered picture. No pixel moves, so labels stay exact.

    Attributes:
        gain: exposure factor.
        gamma: exponent on linear intensity; below 1 lifts shadows.
        tint: white balance, a factor per channel.
        blur_px: sigma of the defocus.
        noise: sigma of the sensor noise, in grey levels of 255.
        vignette: share of light lost in the corners.
        colour_fringe_px: how far red and blue are displaced at the border.
        bloom: share of light that bright spots spill around them.
        rain: share of pixels under a rain streak.
        droplets: drops on the lens.
        veil: share of grey light spread over the picture.
    """

    gain: Range = (0.95, 1.05)
    gamma: Range = (0.75, 1.15)
    tint: Colour = (1.0, 1.0, 1.0)
    blur_px: Range = (0.2, 0.7)
    noise: Range = (1.0, 4.0)
    vignette: float = 0.05
    colour_fringe_px: float = 0.0
    bloom: float = 0.0
    rain: float = 0.0
    droplets: int = 0
    veil: float = 0.0


@dataclass(frozen=True)
class Style:
    """A time of day and a weather, seen through a lens.

    Attributes:
        ambient, sun: intensities; their tints are factors per channel.
        sun_height_deg: the sun's height above the horizon.
        skies: (top, horizon) colours to choose from, 0 to 255.
        clouds: share of cloud in the sky.
        fog_density: exponential, per metre.
        road_gain: how dark the ground is (wet asphalt is darker).
        lit_windows: share of windows with a light on.
    """

    ambient: Range
    sun: Range
    sun_height_deg: Range
    skies: tuple[tuple[Colour, Colour], ...]
    clouds: Range
    fog_density: Range
    lens: Lens
    ambient_tint: Colour = (1.0, 1.0, 1.0)
    sun_tint: Colour = (1.0, 1.0, 1.0)
    road_gain: float = 1.0
    lit_windows: float = 0.0


STYLES = {
    "clear": Style(
        ambient=(0.38, 0.72),
        sun=(0.15, 0.85),
        sun_height_deg=(20, 70),
        skies=(
            ((120, 165, 225), (205, 222, 240)),
            ((95, 145, 215), (190, 212, 238)),
            ((190, 200, 210), (232, 236, 240)),
            ((235, 238, 242), (250, 250, 250)),
        ),
        clouds=(0.0, 1.0),
        fog_density=(0.0, 0.003),
        lens=Lens(),
        ambient_tint=(0.97, 1.0, 1.06),
        sun_tint=(1.05, 1.0, 0.92),
    ),
    "dusk": Style(
        ambient=(0.20, 0.30),
        sun=(0.05, 0.16),
        sun_height_deg=(4, 14),
        skies=(((48, 58, 98), (206, 138, 104)), ((38, 46, 78), (150, 112, 118))),
        clouds=(0.0, 0.5),
        fog_density=(0.002, 0.006),
        lens=Lens(
            gain=(1.0, 1.2),
            gamma=(0.95, 1.15),
            tint=(1.06, 0.97, 0.94),
            blur_px=(0.6, 1.0),
            noise=(6.0, 10.0),
            vignette=0.3,
            bloom=0.5,
        ),
        ambient_tint=(0.86, 0.94, 1.2),
        sun_tint=(1.4, 0.85, 0.5),
        lit_windows=0.35,
    ),
    "rain": Style(
        ambient=(0.36, 0.50),
        sun=(0.02, 0.10),
        sun_height_deg=(30, 70),
        skies=(((128, 134, 142), (176, 180, 184)), ((108, 116, 126), (160, 166, 172))),
        clouds=(0.2, 0.6),
        fog_density=(0.012, 0.024),
        lens=Lens(
            gain=(0.92, 1.05),
            gamma=(0.9, 1.1),
            tint=(0.93, 1.0, 1.04),
            blur_px=(0.9, 1.3),
            noise=(3.0, 6.0),
            vignette=0.22,
            colour_fringe_px=1.2,
            bloom=0.25,
            rain=0.03,
            droplets=7,
            veil=0.10,
        ),
        road_gain=0.62,
        lit_windows=0.12,
    ),
}
