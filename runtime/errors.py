"""What can go wrong on the device, and who has to act.

StreamError              the user has to change something: exit code 2
├── SourceError          a camera, stream or file that gives no frames
├── ManifestError        a bundle that is damaged, incomplete or of another schema
├── BackendUnavailable   a backend, device or model that does not start
├── SinkError            an output that cannot be written or shown
└── ConfigError          a file of settings that is not TOML, or says what cannot be
"""


class StreamError(Exception):
    """Base of all errors that a user can fix."""


class SourceError(StreamError):
    """A source gives no frames."""


class ManifestError(StreamError):
    """A bundle is damaged, incomplete or of another schema."""


class BackendUnavailable(StreamError):  # noqa: N818 - the name says more
    """A backend does not start, or does not do what was asked."""


class SinkError(StreamError):
    """An output cannot be written or shown."""


class ConfigError(StreamError):
    """A file of settings is missing, is not TOML, or has an impossible setting."""


def missing_package(what: str, error: ModuleNotFoundError, extra: str) -> str:
    """The text for an output or source whose package is not installed."""
    package = (error.name or "a package").partition(".")[0]
    return f"{what} needs {package}: pip install 'sfda-edge[{extra}]'"
