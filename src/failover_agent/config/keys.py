"""Every key of config.toml, under the name it has there, with its default and what it may be."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from failover_agent.config import values
from failover_agent.config.values import ArbiterKind
from failover_agent.core.messages import LONGEST_LEASE_S
from failover_agent.core.policy import (
    LoneStart,
    OnEngineLost,
    OnStop,
    PartitionPolicy,
    RestartPolicyMode,
    Role,
)

PREFIX = "FAILOVER_AGENT_"

SHORTEST_TIMEOUT_S = 1.0
SHORTEST_INTERVAL_S = 0.1
LONGEST_S = 86_400.0
"""A day: what is longer was meant in another unit, and an engine would count it wrongly."""
LONGEST_WINDOW_S = 30 * LONGEST_S
MOST = 1000

WORDS = "in the environment it is one line of words, and not a list with commas"
"""Marks a list that may be written as a command line."""


def _one_or_more(value: object) -> object:
    return (value,) if isinstance(value, str) else value


def _command_line(value: object) -> object:
    return values.split_command(value) if isinstance(value, str) else value


def _check_endpoint(text: str) -> str:
    return f"http://{values.parse_endpoint(text)}"


def _check_arbiter_endpoint(text: str, info: ValidationInfo) -> str:
    # pydantic-settings tries a value of the environment on its own too, without its neighbours.
    neighbours = info.data or {}
    return values.check_arbiter_endpoint(text, neighbours.get("kind"))


Seconds = Annotated[float, Field(gt=0, le=LONGEST_S, allow_inf_nan=False)]
Interval = Annotated[
    float, Field(ge=SHORTEST_INTERVAL_S, le=LONGEST_LEASE_S / 2, allow_inf_nan=False)
]
Grace = Annotated[float, Field(ge=0, le=LONGEST_S, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=MOST)]
Port = Annotated[int, Field(ge=1, le=65535)]
Host = Annotated[str, AfterValidator(values.check_host)]
Container = Annotated[str, AfterValidator(values.check_container)]
Cluster = Annotated[str, AfterValidator(values.check_cluster)]
Endpoint = Annotated[str, AfterValidator(_check_endpoint)]
ArbiterEndpoint = Annotated[str, AfterValidator(_check_arbiter_endpoint)]
File = Annotated[Path, Field(strict=False), AfterValidator(values.check_file)]
AbsolutePath = Annotated[Path, Field(strict=False), AfterValidator(values.check_path)]
SocketPath = Annotated[Path, Field(strict=False), AfterValidator(values.check_socket_path)]
Command = Annotated[
    tuple[str, ...],
    Field(strict=False),
    BeforeValidator(_command_line),
    AfterValidator(values.check_command),
    WORDS,
]


class _Table(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class NodeKeys(_Table):
    """[primary] and [backup]: what a node has for itself."""

    port: Port = 8000
    endpoint: Annotated[
        tuple[Endpoint, ...], Field(strict=False), BeforeValidator(_one_or_more)
    ] = ()
    bind: Host = "0.0.0.0"  # noqa: S104 - the peer is elsewhere
    state_dir: AbsolutePath | None = None
    control_socket: SocketPath | None = None


class ArbiterKeys(_Table):
    """[arbiter]: the third voter, as the nodes reach it. `kind` None: there is none."""

    kind: Annotated[ArbiterKind | None, Field(strict=False)] = None
    endpoint: Annotated[
        tuple[ArbiterEndpoint, ...], Field(strict=False), BeforeValidator(_one_or_more)
    ] = ()
    username: str | None = None
    password_file: File | None = None
    password: Annotated[str | None, Field(repr=False)] = None
    ca_file: File | None = None
    cert_file: File | None = None
    key_file: File | None = None


class WitnessClusterKeys(_Table):
    """[witness.clusters.NAME]: one of several pairs that a witness serves."""

    secret_file: File | None = None


class WitnessKeys(_Table):
    """[witness]: what the witness has for itself."""

    port: Port = 8000
    bind: Host = "0.0.0.0"  # noqa: S104 - the nodes are elsewhere
    state_dir: AbsolutePath = Path("/var/lib/failover-agent/witness")
    control_socket: SocketPath = Path("/run/failover-agent/witness.sock")
    clusters: dict[Cluster, WitnessClusterKeys] = {}


class SecurityKeys(_Table):
    """[security]"""

    secret_file: File | None = None
    secret: Annotated[str | None, Field(repr=False)] = None
    allow_unauthenticated: bool = False
    read_access: Literal["open", "secret", "local"] = "open"


class DockerKeys(_Table):
    """[docker]"""

    host: Annotated[str, AfterValidator(values.check_docker_host)] | None = None
    tls_verify: bool | None = None
    ca_file: File | None = None
    cert_file: File | None = None
    key_file: File | None = None
    stop_timeout: Annotated[int, Field(ge=0, le=int(LONGEST_S))] | None = None
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

    cluster: Cluster = "default"
    containers: Annotated[tuple[Container, ...], Field(strict=False)] = ()

    heartbeat_interval: Interval = 1.0
    check_heartbeat_interval: Interval = 1.0
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
    max_failovers: Annotated[int, Field(ge=1, le=MOST)] = 3
    failover_window: Annotated[float, Field(gt=0, le=LONGEST_WINDOW_S, allow_inf_nan=False)] = (
        3600.0
    )
    failback: str = "manual"
    failback_delay: Seconds = 300.0
    fence_command: Command = ()
    fence_timeout: Seconds = 30.0
    mode: Literal["act", "observe"] = "act"

    primary: NodeKeys = NodeKeys()
    backup: NodeKeys = NodeKeys()
    arbiter: ArbiterKeys = ArbiterKeys()
    witness: WitnessKeys = WitnessKeys()
    security: SecurityKeys = SecurityKeys()
    docker: DockerKeys = DockerKeys()
    log: LogKeys = LogKeys()

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
        """The table of `role`, a member."""
        assert role is not Role.WITNESS, "a witness has another kind of table"
        return self.primary if role is Role.PRIMARY else self.backup

    @property
    def has_witness(self) -> bool:
        """Can a witness be run with this: is there one in it, or a table of its own?"""
        return "witness" in self.model_fields_set or self.arbiter.kind is ArbiterKind.WITNESS

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


# --- what is known of the keys --------------------------------------------------------------------

EACH = "*"
"""Stands for the names that the author of a configuration chooses."""


def table_of(info: Any) -> type[BaseModel] | None:
    """The model behind a field that is a table, or a table of tables."""
    annotation: Any = info.annotation
    if getattr(annotation, "__origin__", None) is dict:
        annotation = annotation.__args__[1]
    is_table = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return annotation if is_table else None


def is_table_of_tables(info: Any) -> bool:
    """Does the author choose the names in it?"""
    return getattr(info.annotation, "__origin__", None) is dict


def names(model: type[BaseModel] = Keys) -> dict[str, Any]:
    """Every key: names to None, tables to their own names, EACH for any name."""
    known: dict[str, Any] = {}
    for name, info in model.model_fields.items():
        table = table_of(info)
        below = names(table) if table else None
        known[name] = {EACH: below} if is_table_of_tables(info) else below
    return known


def default(loc: tuple[int | str, ...]) -> object:
    """The default of the key at `loc`, which may lead into its value; None where it has none."""
    model: type[BaseModel] = Keys
    parts = iter(loc)
    for part in parts:
        info = model.model_fields.get(str(part))
        if info is None:
            return None
        table = table_of(info)
        if is_table_of_tables(info):
            next(parts, None)
        if table is None:
            return info.default
        model = table
    return None
