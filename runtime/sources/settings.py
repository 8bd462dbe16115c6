"""SourceSettings: what a user asks of a source."""

from __future__ import annotations

from dataclasses import dataclass, field

from runtime.sources.watchdog import WatchdogLimits


@dataclass(frozen=True, kw_only=True)
class SourceSettings:
    """Wishes; a source says what it cannot do.

    Attributes:
        size_hw: of a camera's pictures; None for its own choice.
        fps: of a camera.
        pixel_format: of a camera, four letters such as MJPG or YUYV.
        limits: when a live source is stale, and when it is lost.
        loop: begin a file again when it has ended.
        late_name: what a live source is called that may open later: until then it is lost. None
            where it has to open at once.
        reconnect: attempts to open a lost source again; None for no end, 0 for none.
    """

    size_hw: tuple[int, int] | None = None
    fps: float | None = None
    pixel_format: str | None = None
    limits: WatchdogLimits = field(default_factory=WatchdogLimits)
    reconnect: int | None = None
    loop: bool = False
    late_name: str | None = None

    @property
    def of_camera(self) -> tuple[str, ...]:
        """The flags that only a camera can follow, of those that were given."""
        given = {"--size": self.size_hw, "--fps": self.fps, "--format": self.pixel_format}
        return tuple(flag for flag, value in given.items() if value is not None)
