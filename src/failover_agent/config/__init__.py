"""config.toml and the environment become `Settings`, and these a core `Policy`.

The only reader of either. Every mistake in them is found in one go and told together: where it
stands, the key, the numbers, and the way out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from failover_agent.config import values
from failover_agent.config.contradictions import find_contradictions
from failover_agent.config.files import parse, read_secret
from failover_agent.config.mistakes import Source, explain, find_unknown
from failover_agent.config.settings import MEMBERS, Configuration, Node, Settings
from failover_agent.config.values import Unfit, shown
from failover_agent.core.messages import LONGEST_LEASE_S
from failover_agent.core.policy import (
    LoneStart,
    OnEngineLost,
    OnStop,
    PartitionPolicy,
    RestartPolicyMode,
    Role,
)
from failover_agent.errors import ConfigError, SecretError

USUAL_PATH = Path("/etc/failover-agent/config.toml")
PREFIX = "FAILOVER_AGENT_"

SHORTEST_TIMEOUT_S = 1.0
SHORTEST_INTERVAL_S = 0.1

__all__ = [
    "Configuration",
    "Keys",
    "MistakesError",
    "Node",
    "Settings",
    "choose_path",
    "choose_role",
    "load",
    "read",
]

_NOT_SETTINGS = frozenset({f"{PREFIX}CONFIG", f"{PREFIX}ROLE"})


class MistakesError(ConfigError):
    """All that is wrong with a configuration, a paragraph each."""

    def __init__(self, mistakes: tuple[ConfigError, ...]) -> None:
        super().__init__(where=mistakes[0].where, what=mistakes[0].what, todo=mistakes[0].todo)
        self.mistakes = mistakes

    def __str__(self) -> str:
        return "\n".join(str(mistake) for mistake in self.mistakes)


# --- the keys -------------------------------------------------------------------------------------


def _one_or_more(value: object) -> object:
    return (value,) if isinstance(value, str) else value


def _check_endpoint(text: str) -> str:
    return f"http://{values.parse_endpoint(text)}"


Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Grace = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]
Port = Annotated[int, Field(ge=1, le=65535)]
Container = Annotated[str, AfterValidator(values.check_container)]
Endpoint = Annotated[str, AfterValidator(_check_endpoint)]
AbsolutePath = Annotated[Path, Field(strict=False), AfterValidator(values.check_path)]
SocketPath = Annotated[Path, Field(strict=False), AfterValidator(values.check_socket_path)]
Later = dict[str, Any]
"""A table of a later version: its keys are known, its contents are not looked at."""


class _Table(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class NodeKeys(_Table):
    """[primary] and [backup]: what a node has for itself."""

    port: Port = 8000
    endpoint: Annotated[
        tuple[Endpoint, ...], Field(strict=False), BeforeValidator(_one_or_more)
    ] = ()
    bind: Annotated[str, AfterValidator(values.check_host)] = "0.0.0.0"  # noqa: S104 - the peer is elsewhere
    state_dir: AbsolutePath | None = None
    control_socket: SocketPath | None = None


class SecurityKeys(_Table):
    """[security]"""

    secret_file: Annotated[Path, Field(strict=False)] | None = None
    secret: Annotated[str | None, Field(repr=False)] = None
    allow_unauthenticated: bool = False
    read_access: Literal["open", "secret", "local"] = "open"


class DockerKeys(_Table):
    """[docker]"""

    host: Annotated[str, AfterValidator(values.check_docker_host)] | None = None
    stop_timeout: Count | None = None
    start_timeout: Seconds = 60.0


class LogKeys(_Table):
    """[log]"""

    format: Literal["text", "json"] = "text"
    level: Literal["debug", "info", "warning", "error"] = "info"


class Keys(BaseSettings):
    """Every key of config.toml, under the name it has there. What is required is empty here."""

    model_config = SettingsConfigDict(
        strict=True, frozen=True, extra="forbid", env_prefix=PREFIX, env_nested_delimiter="__"
    )

    cluster: Annotated[str, AfterValidator(values.check_cluster)] = "default"
    containers: Annotated[tuple[Container, ...], Field(strict=False)] = ()

    heartbeat_interval: Annotated[float, Field(ge=SHORTEST_INTERVAL_S, allow_inf_nan=False)] = 1.0
    check_heartbeat_interval: Seconds = 1.0
    heartbeat_timeout: Annotated[
        float, Field(ge=SHORTEST_TIMEOUT_S, le=LONGEST_LEASE_S, allow_inf_nan=False)
    ] = 10.0
    startup_grace_period: Grace = 20.0
    restart_grace_period: Grace = 30.0
    stop_budget: Seconds | None = None
    kill_budget: Seconds | None = None

    partition_policy: Annotated[PartitionPolicy, Field(strict=False)] = PartitionPolicy.AVAILABILITY
    lone_start: Annotated[LoneStart, Field(strict=False)] = LoneStart.WAIT
    on_stop: Annotated[OnStop, Field(strict=False)] = OnStop.HANDOVER
    on_engine_lost: Annotated[OnEngineLost, Field(strict=False)] = OnEngineLost.STAY
    restart_attempts: Count = 3
    restart_policy: Annotated[RestartPolicyMode, Field(strict=False)] = RestartPolicyMode.MANAGE
    max_failovers: Annotated[int, Field(ge=1)] = 3
    failover_window: Seconds = 3600.0
    failback: str = "manual"
    failback_delay: Seconds = 300.0
    fence_command: Any = None
    fence_timeout: Seconds = 30.0
    mode: Literal["act", "observe"] = "act"

    primary: NodeKeys = NodeKeys()
    backup: NodeKeys = NodeKeys()
    security: SecurityKeys = SecurityKeys()
    docker: DockerKeys = DockerKeys()
    log: LogKeys = LogKeys()
    arbiter: Later | None = None
    witness: Later | None = None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is pydantic's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """File and environment come in merged, so that each mistake keeps its place."""
        return (init_settings,)

    def table(self, role: Role) -> NodeKeys:
        """The table of `role`."""
        return self.primary if role is Role.PRIMARY else self.backup

    @property
    def stop_budget_s(self) -> float:
        """How long before the end of a lease its holder begins to stop."""
        return self.stop_budget or self.usual_stop_budget_s

    @property
    def kill_budget_s(self) -> float:
        """How long before the end of a lease its holder kills what still runs."""
        return self.kill_budget or self.usual_kill_budget_s

    @property
    def usual_stop_budget_s(self) -> float:
        """The default of `stop_budget`."""
        return max(0.5, self.heartbeat_timeout / 4)

    @property
    def usual_kill_budget_s(self) -> float:
        """The default of `kill_budget`."""
        return max(0.25, self.heartbeat_timeout / 10)


# --- reading --------------------------------------------------------------------------------------


def load(config: Path | None = None, role: str | None = None) -> Settings:
    """The settings of one node. `config` and `role` come from the command line.

    Raises MistakesError with everything that is wrong.
    """
    mistakes: list[ConfigError] = []
    chosen, secret = Role.PRIMARY, None
    try:
        chosen = choose_role(role)
    except ConfigError as error:
        mistakes.append(error)
    configuration = _examine(choose_path(config), mistakes)
    try:
        secret = _secret(configuration)
    except SecretError as error:
        mistakes.append(error)
    if mistakes:
        raise MistakesError(tuple(mistakes))
    return Settings(role=chosen, configuration=configuration, secret=secret)


def read(config: Path | None = None) -> Configuration:
    """What both nodes have in common, without the secret. Raises MistakesError."""
    mistakes: list[ConfigError] = []
    configuration = _examine(choose_path(config), mistakes)
    if mistakes:
        raise MistakesError(tuple(mistakes))
    return configuration


def choose_path(config: Path | None = None) -> Path:
    """--config, else FAILOVER_AGENT_CONFIG, else the usual place."""
    return config or Path(os.environ.get(f"{PREFIX}CONFIG") or USUAL_PATH)


def choose_role(role: str | None = None) -> Role:
    """--role, else FAILOVER_AGENT_ROLE. Raises ConfigError."""
    text = role or os.environ.get(f"{PREFIX}ROLE") or ""
    where = "--role" if role else f"{PREFIX}ROLE"
    if text == Role.WITNESS:
        raise ConfigError(
            where=where,
            what="a witness is not in this version yet",
            todo="The two nodes are --role primary and --role backup.",
        )
    if text in MEMBERS:
        return Role(text)
    if text:
        raise ConfigError(
            where=where,
            what=f"{shown(text)} is not a role",
            todo="It is primary on one host and backup on the other.",
        )
    raise ConfigError(
        where="--role",
        what="which node this is has not been said",
        todo=f"Add --role primary or --role backup, or set {PREFIX}ROLE.",
    )


def _examine(path: Path, mistakes: list[ConfigError]) -> Configuration:
    """File and environment; what is wrong goes to `mistakes`, and the result is of use without any.

    Raises MistakesError, with what was found before, when the file cannot be read at all.
    """
    try:
        data = parse(path)
    except ConfigError as error:
        raise MistakesError((*mistakes, error)) from error
    source = Source(path, data, _environment(), PREFIX, mistakes)
    find_unknown(source, _names(Keys))
    keys = _keys(source)
    find_contradictions(source, keys)
    docker_host = keys.docker.host or _docker_host_of_environment(source)
    return Configuration(path=path, keys=keys, docker_host=docker_host)


def _keys(source: Source) -> Keys:
    """The keys as far as their values can be used; the source notes the others."""
    try:
        return Keys(**source.merged())
    except ValidationError as error:
        for problem in error.errors(include_url=False):
            explain(source, problem, _default(problem["loc"]))
    return Keys(**source.merged())


def _docker_host_of_environment(source: Source) -> str:
    text = os.environ.get("DOCKER_HOST") or values.USUAL_DOCKER_HOST
    try:
        return values.check_docker_host(text)
    except Unfit as unfit:
        source.mistakes.append(
            ConfigError(where="environment", what=f"DOCKER_HOST {unfit.what}", todo=unfit.todo)
        )
        return values.USUAL_DOCKER_HOST


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
        if (
            name.startswith(PREFIX)
            and name not in _NOT_SETTINGS
            and (rest.partition("__")[0] not in Keys.model_fields)
        ):
            texts[rest] = text
    return _typed(texts, Keys)


def _typed(texts: Mapping[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    typed: dict[str, Any] = {}
    for name, text in texts.items():
        info = model.model_fields.get(name)
        table = _table_of(info) if info else None
        if table and isinstance(text, dict):
            typed[name] = _typed(text, table)
        elif info and isinstance(text, str):
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


def _table_of(info: FieldInfo) -> type[BaseModel] | None:
    annotation: object = info.annotation
    return (
        annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
    )


def _names(model: type[BaseModel]) -> dict[str, Any]:
    """Every key: names to None, tables to their own names."""
    names: dict[str, Any] = {}
    for name, info in model.model_fields.items():
        table = _table_of(info)
        names[name] = _names(table) if table else None
    return names


def _default(loc: tuple[int | str, ...]) -> object:
    model: type[BaseModel] = Keys
    info: FieldInfo | None = None
    for part in loc:
        if info is not None:
            table = _table_of(info)
            if table is None:
                break
            model = table
        info = model.model_fields[str(part)]
    return None if info is None else info.default


def _secret(configuration: Configuration) -> bytes | None:
    security = configuration.keys.security
    if security.secret is not None:
        return security.secret.strip().encode()
    if security.secret_file is not None:
        return read_secret(configuration.path.parent / security.secret_file)
    return None
