"""Unknown keys and values of the wrong kind, and the sentences that say so.

Each becomes a `ConfigError` with the place, the key, the numbers and the way out; a key that was
already complained of is not complained of again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from failover_agent.config import values
from failover_agent.config.keys import EACH
from failover_agent.config.values import Unfit, shown
from failover_agent.errors import ConfigError

Key = tuple[str, ...]
"""The way to a setting: ("heartbeat_timeout",) or ("primary", "port")."""

EXAMPLES: Mapping[str, str] = {
    "bind": '"10.0.0.1"',
    "containers": '["db", "web"]',
    "endpoint": '"http://10.0.0.2:8000"',
    "host": f'"{values.USUAL_DOCKER_HOST}"',
    "secret": '"..."',
    "secret_file": '"/etc/failover-agent/secret"',
    "state_dir": '"/var/lib/failover-agent/shop"',
    "control_socket": '"/run/failover-agent/shop.sock"',
    "stop_timeout": "10",
    "kind": '"witness"',
    "username": '"failover"',
    "password": '"..."',
    "password_file": '"/etc/failover-agent/etcd-password"',
    "ca_file": '"/etc/failover-agent/etcd-ca.pem"',
    "cert_file": '"/etc/failover-agent/etcd-client.pem"',
    "key_file": '"/etc/failover-agent/etcd-client.key"',
    "fence_command": '["/usr/local/sbin/power-off", "host-b"]',
    "stop_budget": "2.5",
    "kill_budget": "1.0",
}

_HIDDEN = frozenset({"secret", "password"})

_TOO_SMALL: Mapping[Key, str] = {
    ("check_heartbeat_interval",): "more often costs a processor and finds nothing sooner",
    ("heartbeat_timeout",): "a host under load is late by tenths of a second without being dead",
    ("heartbeat_interval",): "timers of a host under load are late by more than that",
    ("max_failovers",): "with none the pair would never fail over",
}


@dataclass(slots=True)
class Source:
    """Where the values come from, and what was found wrong with them so far.

    `mistakes` is the caller's list and is added to; `bad` are the keys that it speaks of.
    """

    path: Path
    file: dict[str, Any]
    environment: dict[str, Any]
    prefix: str
    mistakes: list[ConfigError]
    bad: set[Key] = field(default_factory=set)

    def merged(self) -> dict[str, Any]:
        """Both sources in one, the environment first."""
        return _merged(self.file, self.environment)

    def has(self, key: Key) -> bool:
        """Does either source set `key`?"""
        return _has(self.file, key) or _has(self.environment, key)

    def is_fine(self, *keys: Key) -> bool:
        """Has nothing been said against any of `keys` yet?"""
        return not any(key in self.bad or key[:1] in self.bad for key in keys)

    def add(self, key: Key, what: str, todo: str, error: type[ConfigError] = ConfigError) -> None:
        """Note that `key` `what`, and how to mend it."""
        self.bad.add(key)
        self.mistakes.append(
            error(where=self._where(key), what=f"{self.name(key)} {what}", todo=todo)
        )

    def name(self, key: Key) -> str:
        """The key as its author wrote it."""
        if _has(self.environment, key):
            return self.variable(key)
        if isinstance(_value_or_none(self.file, key), dict):
            return f"[{'.'.join(key)}]"
        if len(key) == 1:
            return key[0]
        return f"[{'.'.join(key[:-1])}] {key[-1]}"

    def variable(self, key: Key) -> str:
        """The variable of the environment that sets `key`."""
        return self.prefix + "__".join(key).upper()

    def assignment(self, key: Key, value: str) -> str:
        """What to write so that `key` has `value` (as in TOML)."""
        if _has(self.environment, key):
            return f"{self.variable(key)}={value.strip(chr(34))}"  # quotes would be part of it
        return f"{key[-1]} = {value}"

    def default_note(self, key: Key) -> str:
        """What to add to the value of `key` where its author did not choose it."""
        return "" if self.has(key) else ", the default"

    def drop(self, key: Key) -> None:
        """Forget the value of `key` in both sources, so that the rest can be looked at."""
        for data in (self.file, self.environment):
            table: Any = data
            for part in key[:-1]:
                table = table.get(part) if isinstance(table, dict) else None
            if isinstance(table, dict):
                table.pop(key[-1], None)
        self.environment = _without_empty(self.environment)

    def _where(self, key: Key) -> str:
        return "environment" if _has(self.environment, key) else str(self.path)


def _without_empty(data: dict[str, Any]) -> dict[str, Any]:
    """The environment has tables only for what is in them."""
    kept = {}
    for name, value in data.items():
        left = _without_empty(value) if isinstance(value, dict) else value
        if left != {}:
            kept[name] = left
    return kept


def _merged(low: dict[str, Any], high: dict[str, Any]) -> dict[str, Any]:
    merged = dict(low)
    for key, value in high.items():
        below = merged.get(key)
        if isinstance(value, dict) and isinstance(below, dict):
            merged[key] = _merged(below, value)
        elif not isinstance(value, dict) or below is None:
            merged[key] = value
    return merged


def _has(data: dict[str, Any], key: Key) -> bool:
    *above, name = key
    table = _value_or_none(data, tuple(above))
    return isinstance(table, dict) and name in table


def _value_or_none(data: Any, key: Key) -> Any:
    for part in key:
        data = data.get(part) if isinstance(data, dict) else None
    return data


# --- unknown keys ---------------------------------------------------------------------------------


def find_unknown(source: Source, known: Mapping[str, Any]) -> None:
    """Complain of every key that is not in `known`: names to None, tables to their own names."""
    for data in (source.file, source.environment):
        is_environment = data is source.environment
        for key in list(_unknown(data, known, (), is_environment=is_environment)):
            is_table = isinstance(_value_or_none(data, key), dict)
            _complain_of_unknown(source, key, known, is_table=is_table)
            source.drop(key)


def _unknown(
    data: dict[str, Any], known: Mapping[str, Any], above: Key, *, is_environment: bool
) -> Iterator[Key]:
    """In the file a table in place of a value is a value of the wrong kind; a variable has "__" in
    its name once too often.
    """
    for name, value in data.items():
        below = known.get(name, known.get(EACH))
        if name not in known and EACH not in known:
            yield (*above, name)
        elif below is None and is_environment and isinstance(value, dict):
            yield from ((*above, name, part) for part in value)
        elif isinstance(below, Mapping) and isinstance(value, dict):
            yield from _unknown(value, below, (*above, name), is_environment=is_environment)


def _table(known: Mapping[str, Any], key: Key) -> Mapping[str, Any]:
    """What is known below `key`."""
    for part in key:
        known = known.get(part, known.get(EACH))
    return known


def _complain_of_unknown(
    source: Source, key: Key, known: Mapping[str, Any], *, is_table: bool
) -> None:
    name, table = key[-1], key[:-1]
    everything = [*_all_keys(known, ())]
    homes = [other for other in everything if other[-1] == name and other != key]
    here = _table(known, table)
    in_environment = _has(source.environment, key)
    if in_environment:
        by_text = {"__".join(other): other for other in everything}
        deeper = "__".join(table)  # with one name too many
        likely = deeper if deeper in by_text else values.closest("__".join(key), by_text)
        meant_keys = [by_text[likely]] if likely else []
        todo = f"Did you mean {source.variable(meant_keys[0])}?" if meant_keys else "Unset it."
        source.add(key, "is not a setting", todo)
        _spare(source, meant_keys)
        return
    if homes:
        todo = _homes_sentence(homes)
        _spare(source, homes)
    elif meant := values.closest(name, here):
        is_table_too = isinstance(here[meant], Mapping)
        todo = f"Did you mean {f'[{meant}]' if is_table_too else meant}?"
        _spare(source, [(*table, meant)])
    elif elsewhere := values.closest(name, {other[-1] for other in everything}):
        found = [other for other in everything if other[-1] == elsewhere]
        todo = f"Did you mean {elsewhere}? {_homes_sentence(found)}"
        _spare(source, found)
    elif is_table and not table:
        tables = ", ".join(each for each, below in known.items() if isinstance(below, Mapping))
        todo = f"Tables: {tables}. Those of the nodes are [primary] and [backup]."
    else:
        place = f"[{'.'.join(table)}]" if table else "The file"
        todo = f"{place} knows {', '.join(here)}."
    if is_table:
        source.mistakes.append(
            ConfigError(where=str(source.path), what=f"[{'.'.join(key)}] is not a table", todo=todo)
        )
    else:
        source.add(key, "is not a setting", todo)


def _spare(source: Source, meant: list[Key]) -> None:
    """What was meant by an unknown key is not also said to be missing."""
    source.bad |= {key for key in meant if not source.has(key)}


def _all_keys(known: Mapping[str, Any], above: Key) -> Iterator[Key]:
    for name, below in known.items():
        if isinstance(below, Mapping):
            yield from _all_keys(below, (*above, name))
        else:
            yield (*above, name)


def _homes_sentence(homes: list[Key]) -> str:
    tables = [f"[{'.'.join(home[:-1]).replace(EACH, 'NAME')}]" for home in homes if len(home) > 1]
    if not tables:
        return "It belongs at the top of the file, above the first [table]."
    *first, last = tables
    return f"It belongs in {', '.join(first)}{' or ' if first else ''}{last}."


# --- values of the wrong kind ---------------------------------------------------------------------


_OF_THE_NAME = "[key]"
"""Where pydantic speaks of a name that its author chose, and not of what stands below it."""


def explain(source: Source, error: Mapping[str, Any], default: object) -> None:
    """Complain of one error of pydantic's (`ValidationError.errors()`), and drop the value."""
    key = tuple(part for part in error["loc"] if isinstance(part, str) and part != _OF_THE_NAME)
    what, todo = _explanation(source, key, error, default)
    source.add(key, what, todo)
    source.drop(key)


def _explanation(
    source: Source, key: Key, error: Mapping[str, Any], default: object
) -> tuple[str, str]:
    value, context = error["input"], error.get("ctx", {})
    given = "(not shown here)" if _HIDDEN & {*key} else f"({shown(value)})"
    usual = EXAMPLES.get(key[-1]) or shown(_number(default))
    such_as = f"Write {source.assignment(key, usual)}, for example."
    match error["type"]:
        case "value_error" if isinstance(context["error"], Unfit):
            return context["error"].what, context["error"].todo
        case "float_type" | "finite_number":
            return f"{given} must be a number of seconds", such_as
        case "int_type" | "int_from_float" | "int_parsing_size":
            return f"{given} must be a whole number", such_as
        case "bool_type":
            return f"{given} must be true or false, without quotes", such_as
        case "string_type" | "path_type" if isinstance(value, list | dict):
            return f"{given} must be text", such_as
        case "string_type" | "path_type":
            quoted = '"..."' if key[-1] in _HIDDEN else f'"{value}"'
            return f"{given} must be text", f"Put it in double quotes: {quoted}."
        case "tuple_type" if key[-1] == "endpoint":
            return f"{given} must be text, or a list of texts", such_as
        case "tuple_type":
            if _has(source.environment, key):
                return f"{given} must be a list", f"Write {source.variable(key)}=db,web."
            words = value.replace(",", " ").split() if isinstance(value, str) else ()
            example = shown(words) if words else usual
            return f"{given} must be a list", f"Write {key[-1]} = {example}."
        case "greater_than":
            return f"{given} must be above {context['gt']:g}", such_as
        case "greater_than_equal":
            reason = f": {_TOO_SMALL[key]}" if key in _TOO_SMALL else ""
            return f"{given} must be {context['ge']:g} or more{reason}", such_as
        case "less_than_equal":
            if isinstance(context["le"], float) or key[-1] == "stop_timeout":  # Milliseconds?
                such_as = f"It counts seconds: {such_as[0].lower()}{such_as[1:]}"
            return f"{given} must be {context['le']:g} or less", such_as
        case "enum" | "literal_error":
            wanted = str(context["expected"]).replace("'", '"')
            meant = values.closest(value, _words(wanted)) if isinstance(value, str) else None
            return f"{given} must be {wanted}", f'Did you mean "{meant}"?' if meant else such_as
        case "model_type" | "dict_type":  # not shown: it may hold a secret
            return "must be a table", _table_of_its_own(source, key, value)
        case _:
            return f"{given} cannot be used: {error['msg']}", such_as


def _table_of_its_own(source: Source, key: Key, value: object) -> str:
    name = ".".join(key)
    if _has(source.environment, key):
        return f"Set a variable for each of its settings: {source.variable((*key, 'name'))}=..."
    if isinstance(value, list):
        return f"Write [{name}] with one bracket on each side: with two it is a list."
    return f"Write [{name}] on a line of its own, and its settings below it."


def _number(default: object) -> object:
    return f"{default:g}" if isinstance(default, float) and default % 1 else default


def _words(expected: str) -> list[str]:
    return [word for word in expected.replace(",", " ").replace('"', " ").split() if word != "or"]
