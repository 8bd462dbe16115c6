"""``--config FILE.toml``: the flags of a stream in a file, for one source or several.

Keys are the flags without their dashes. What stands at the top is for the process, or for every
source; each ``[[source]]`` has a ``from``, may have a ``name``, and may change the rest.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from runtime.arguments import Parser
from runtime.errors import ConfigError
from runtime.sources.names import shown_name
from runtime.toml_file import read_toml

# Flags of the process; one model serves all sources.
OF_PROCESS = frozenset(
    {"bundle", "backend", "threads", "cpus", "batch", "log-format", "serve", "trace"}
)
_NOT_IN_A_FILE = frozenset({"config", "help"})
_SOURCE, _FROM, _NAME = "source", "from", "name"


class _ConfigParser(Parser):
    """Says which file and source a wrong value is in."""

    where = ""

    def error(self, message: str) -> NoReturn:
        """Raise instead of ending the program."""
        raise ConfigError(f"{self.where}: {message.removeprefix('argument --')}")


def read_config(
    path: Path, add_arguments: Callable[[argparse.ArgumentParser], None]
) -> list[argparse.Namespace]:
    """The arguments of each source, as the command line would give them, with its ``name``.

    Args:
        path: of the file.
        add_arguments: adds the flags that are known to a parser.

    Raises:
        ConfigError: it is not TOML, or has a key or a value that cannot be.
    """
    common = read_toml(path)
    tables = common.pop(_SOURCE, None)
    if not isinstance(tables, list) or not tables or not all(isinstance(t, dict) for t in tables):
        raise ConfigError(
            f'{path} lists no source: add [[source]] with from = "camera0" below its settings'
        )
    parser = _ConfigParser(prog=str(path))
    add_arguments(parser)
    parser.where = str(path)
    parser.parse_args(_tokens(parser, common))  # what is wrong above the sources is in none of them
    return _named_once(path, [_arguments(path, parser, common, table) for table in tables])


def _arguments(
    path: Path, parser: _ConfigParser, common: dict[str, Any], table: dict[str, Any]
) -> argparse.Namespace:
    table = dict(table)
    where, name = table.pop(_FROM, None), table.pop(_NAME, None)
    if not isinstance(where, str) or not where:
        raise ConfigError(f'{path}: a [[source]] needs a source, such as from = "camera0"')
    if name is not None and (not isinstance(name, str) or not name):
        raise ConfigError(f"{path}: name is {name!r}, a text is needed")
    name = name or shown_name(where)
    parser.where = f"{path}, source '{name}'"
    if misplaced := sorted(OF_PROCESS & table.keys()):
        raise ConfigError(
            f"{parser.where}: all sources share {', '.join(misplaced)}; write it above the first "
            "[[source]]"
        )
    args = parser.parse_args([*_tokens(parser, {**common, **table}), "--", where])
    args.name = name
    return args


def _tokens(parser: _ConfigParser, settings: dict[str, Any]) -> list[str]:
    """Settings as words of a command line."""
    return [token for key, value in settings.items() for token in _words(parser, key, value)]


def _words(parser: _ConfigParser, key: str, value: Any) -> list[str]:
    flag = f"--{key}"
    # The public way to ask a parser what it knows is to parse.
    action = parser._option_string_actions.get(flag)
    if action is None or key in _NOT_IN_A_FILE:
        parser.error(
            f"unknown key '{key}'; keys are flags of --help, such as on-loss for --on-loss"
        )
    if isinstance(value, bool):
        if action.nargs not in (0, "?"):
            parser.error(f"{key} is {str(value).lower()}, a value is needed")
        return [flag] if value else []
    if action.nargs == 0:
        parser.error(f"{key} is {value!r}; write true or false")
    if not isinstance(value, str | int | float):
        parser.error(f"{key} is {value!r}, one value is needed")
    return [f"{flag}={value}"]


def _named_once(path: Path, runs: list[argparse.Namespace]) -> list[argparse.Namespace]:
    names = [args.name for args in runs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"{path}: two sources are called '{twice[0]}'; give each a name")
    return runs
