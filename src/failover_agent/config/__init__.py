"""config.toml and the environment become `Settings`, and these a core `Policy`.

The only reader of either. Every mistake in them is found in one go and told together: where it
stands, the key, the numbers, and the way out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import EnvSettingsSource

from failover_agent.config import docker, values
from failover_agent.config import keys as known
from failover_agent.config.contradictions import find_contradictions
from failover_agent.config.files import check_tls, parse, read_password, read_secret
from failover_agent.config.keys import PREFIX, Keys
from failover_agent.config.mistakes import Source, explain, find_unknown
from failover_agent.config.settings import (
    MEMBERS,
    Arbiter,
    Configuration,
    Fence,
    Node,
    Settings,
    WitnessNode,
)
from failover_agent.config.values import ArbiterKind, shown
from failover_agent.core.policy import Role
from failover_agent.errors import ConfigError

USUAL_PATH = Path("/etc/failover-agent/config.toml")

__all__ = [
    "Arbiter",
    "ArbiterKind",
    "Configuration",
    "Fence",
    "Keys",
    "MistakesError",
    "Node",
    "Settings",
    "WitnessNode",
    "choose_path",
    "choose_role",
    "load",
    "read",
]

_NOT_SETTINGS = frozenset(
    PREFIX + name for name in "CONFIG ROLE LIFELINE PEER PEER_HOST TERM REASON".split()
)
"""Where the rest stands, the guard's line to the agent, and what a fence command is told."""


class MistakesError(ConfigError):
    """All that is wrong with a configuration, a paragraph each."""

    def __init__(self, mistakes: tuple[ConfigError, ...]) -> None:
        super().__init__(where=mistakes[0].where, what=mistakes[0].what, todo=mistakes[0].todo)
        self.mistakes = mistakes

    def __str__(self) -> str:
        return "\n".join(str(mistake) for mistake in self.mistakes)


# --- reading --------------------------------------------------------------------------------------


def load(config: Path | None = None, role: str | None = None) -> Settings:
    """The settings of one node, or of the witness. `config` and `role` come from the command line.

    Raises MistakesError with everything that is wrong.
    """
    mistakes: list[ConfigError] = []
    chosen = None
    try:
        chosen = choose_role(role)
    except ConfigError as error:
        mistakes.append(error)
    configuration = _examine(choose_path(config), chosen, mistakes)
    if chosen is Role.WITNESS and not configuration.keys.has_witness:
        mistakes.append(_no_witness(configuration))
    settings = Settings(role=chosen or Role.PRIMARY, configuration=configuration, secret=None)
    for filled_in in (_with_secret, _with_clusters, _with_password, _with_engine):
        try:
            settings = filled_in(settings)
        except ConfigError as error:
            mistakes.append(error)
    if mistakes:
        raise MistakesError(tuple(mistakes))
    return settings


def read(config: Path | None = None) -> Configuration:
    """What all have in common, without the secrets. Raises MistakesError."""
    mistakes: list[ConfigError] = []
    configuration = _examine(choose_path(config), None, mistakes)
    if mistakes:
        raise MistakesError(tuple(mistakes))
    return configuration


def choose_path(config: Path | None = None) -> Path:
    """--config, else FAILOVER_AGENT_CONFIG, else the usual place."""
    return config or Path(os.environ.get(f"{PREFIX}CONFIG") or USUAL_PATH)


def choose_role(role: str | None = None) -> Role:
    """--role, else FAILOVER_AGENT_ROLE. Raises ConfigError."""
    text = role or os.environ.get(f"{PREFIX}ROLE") or ""
    roles = {*MEMBERS, Role.WITNESS}
    if text in roles:
        return Role(text)
    if text:
        raise ConfigError(
            where="--role" if role else f"{PREFIX}ROLE",
            what=f"{shown(text)} is not a role",
            todo=(f"Did you mean {text.strip().lower()}? " if text.strip().lower() in roles else "")
            + "It is primary on one host, backup on the other, and witness on a third, where "
            "there is one.",
        )
    raise ConfigError(
        where="--role",
        what="which node this is has not been said",
        todo=f"Add --role primary or --role backup (on a witness, --role witness), or set "
        f"{PREFIX}ROLE.",
    )


def _examine(path: Path, role: Role | None, mistakes: list[ConfigError]) -> Configuration:
    """File and environment; what is wrong goes to `mistakes`, and the result is of use without any.

    Raises MistakesError, with what was found before, when the file cannot be read at all.
    """
    try:
        data = parse(path)
    except ConfigError as error:
        raise MistakesError((*mistakes, error)) from error
    source = Source(path, data, _environment(), PREFIX, mistakes)
    find_unknown(source, known.names())
    keys = _keys(source)
    find_contradictions(source, keys, role)
    docker_host, docker_files = docker.find_address(source, keys)
    return Configuration(path, keys, docker_host, docker_files)


def _keys(source: Source) -> Keys:
    """The keys as far as their values can be used; the source notes the others."""
    try:
        return Keys(**source.merged())
    except ValidationError as error:
        for problem in error.errors(include_url=False):
            explain(source, problem, known.default(problem["loc"]))
    return Keys(**source.merged())


def _no_witness(configuration: Configuration) -> ConfigError:
    return ConfigError(
        where="--role witness",
        what=f"{configuration.path} knows of no witness",
        todo='Add [arbiter] with kind = "witness" and its endpoint, the same on all hosts; or, '
        "for a witness with a file of its own, [witness].",
    )


# --- what is secret -------------------------------------------------------------------------------


def _with_secret(settings: Settings) -> Settings:
    security = settings.keys.security
    if security.secret is not None:
        return replace(settings, secret=security.secret.strip().encode())
    if security.secret_file is not None:
        return replace(settings, secret=read_secret(settings.path.parent / security.secret_file))
    return settings


def _with_clusters(settings: Settings) -> Settings:
    """Whom a witness serves: the clusters that are named, else the one of the file."""
    if settings.role is not Role.WITNESS:
        return settings
    keys, folder = settings.keys, settings.path.parent
    files = {name: own.secret_file for name, own in keys.witness.clusters.items()}
    clusters = tuple(
        (name, settings.secret if file is None else read_secret(folder / file))
        for name, file in (files or {keys.cluster: None}).items()
    )
    return replace(settings, clusters=clusters)


def _with_password(settings: Settings) -> Settings:
    """The password of the arbiter; its certificates are looked at on the way."""
    keys, arbiter = settings.keys.arbiter, settings.arbiter
    if settings.role is Role.WITNESS or arbiter is None or arbiter.kind is not ArbiterKind.ETCD:
        return settings
    check_tls(arbiter.ca_file, arbiter.cert_file, arbiter.key_file)
    if keys.password_file is None:
        return replace(settings, password=keys.password)
    return replace(settings, password=read_password(settings.path.parent / keys.password_file))


def _with_engine(settings: Settings) -> Settings:
    """Nothing is added: the files for TLS to the engine are looked at."""
    if settings.role is not Role.WITNESS:
        docker.check_files(settings.keys, settings.docker_files)
    return settings


# --- the environment ------------------------------------------------------------------------------


class _Texts(EnvSettingsSource):
    """The variables as nested texts; that a value is a list or a number is found out below."""

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        """Nothing is JSON before it is known what it is meant for."""
        del field_name, field
        return value


def _environment() -> dict[str, Any]:
    """What the environment sets, unknown names included."""
    texts = _Texts(Keys)()
    for variable, text in os.environ.items():
        name = variable.upper()
        rest = name.removeprefix(PREFIX).lower()
        if name.startswith(PREFIX) and name not in _NOT_SETTINGS and not _is_seen(rest):
            texts[rest] = text
    return _typed(texts, Keys)


def _is_seen(name: str) -> bool:
    """Does pydantic look at it: is it a key, or something in a table?"""
    first, _, rest = name.partition("__")
    info = Keys.model_fields.get(first)
    return info is not None and (not rest or known.table_of(info) is not None)


def _typed(texts: Mapping[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    typed: dict[str, Any] = {}
    for name, text in texts.items():
        info = model.model_fields.get(name)
        table = known.table_of(info) if info else None
        if table and isinstance(text, dict):
            typed[name] = text if known.is_table_of_tables(info) else _typed(text, table)
        elif info and isinstance(text, str) and known.WORDS not in info.metadata:
            typed[name] = values.from_text(text, frozenset(_kinds(info.annotation)))
        else:
            typed[name] = text
    return typed


def _kinds(annotation: Any) -> Iterator[type]:
    """The plain types that an annotation is made of; a list counts as `tuple` alone."""
    origin = get_origin(annotation) or annotation
    if origin is tuple:
        yield tuple
        return
    if isinstance(origin, type):
        yield origin
    for part in get_args(annotation):
        yield from _kinds(part)
