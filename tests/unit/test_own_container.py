"""The container of the agent itself: which one it is, whether compose is about to put another one
in its place, and that it is none for an agent to look after.
"""

from pathlib import Path
from typing import Any

import pytest

from failover_agent.adapters.docker.own import REPLACES, SERVICE, is_replaced, own_id
from failover_agent.checks.engine import of_agents
from failover_agent.checks.finding import Level
from failover_agent.config.values import AGENT, Unfit, check_container

OURS, NEXT, OTHER = "a" * 64, "b" * 64, "c" * 64
NOW_S = 1_795_372_714.0
MOUNT = "711 690 254:0 /var/lib/docker/containers/{}/{} /etc/{} rw,relatime - ext4 /dev/vda rw\n"


@pytest.mark.parametrize("file", ["hostname", "hosts", "resolv.conf"])
def test_the_files_that_the_engine_mounts_tell_who_we_are(tmp_path: Path, file: str) -> None:
    mounts = tmp_path / "mountinfo"
    root = (
        "690 600 0:45 / / ro,relatime - overlay overlay rw,lowerdir=/var/lib/docker/overlay2/l/X\n"
    )
    mounts.write_text(root + MOUNT.format(OURS, file, file))
    assert own_id(mounts) == OURS


def test_outside_of_a_container_there_is_no_such_file(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text("22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n")
    assert own_id(mounts) == ""
    assert own_id(tmp_path / "missing") == ""


def row(container_id: str, state: str, **changes: Any) -> dict[str, Any]:
    """As the engine lists a container of compose; what is None is no label."""
    labels = dict(zip(SERVICE, ("failover-agent", "agent"), strict=True))
    labels |= changes.pop("labels", {})
    return {"Id": container_id, "State": state, "Created": NOW_S - 1, "Labels": labels, **changes}


REPLACING = {REPLACES: "failover-agent"}
RUNNING = row(OURS, "running", labels=REPLACING)  # it has replaced one itself, once


def test_what_compose_made_a_moment_ago_to_replace_us_is_about_to_do_so() -> None:
    assert is_replaced(OURS, [row(NEXT, "created", labels=REPLACING), RUNNING], NOW_S)


@pytest.mark.parametrize(
    "other",
    [
        row(NEXT, "created"),
        row(NEXT, "running", labels=REPLACING),
        row(NEXT, "created", labels=REPLACING, Created=NOW_S - 3600),
        row(NEXT, "created", labels={**REPLACING, SERVICE[0]: "shop"}),
        row(NEXT, "created", labels={**REPLACING, SERVICE[1]: "web"}),
        row(NEXT, "created", Labels=None),
        row(NEXT, "created", Labels=REPLACING),
    ],
    ids=[
        *("of another kind", "runs already", "left behind", "other project", "other service"),
        *("no labels", "of no service"),
    ],
)
def test_nothing_else_is(other: dict[str, Any]) -> None:
    assert not is_replaced(OURS, [other, RUNNING], NOW_S)


def test_alone_and_unknown_we_are_not_replaced() -> None:
    assert not is_replaced(OURS, [RUNNING], NOW_S)
    assert not is_replaced(OTHER, [row(NEXT, "created", labels=REPLACING), RUNNING], NOW_S)
    assert not is_replaced(OURS, [], NOW_S)
    nameless = [row(OURS, "running", Labels=None), row(NEXT, "created", Labels=REPLACING)]
    assert not is_replaced(OURS, nameless, NOW_S)


# -- it is not to be looked after -----------------------------------------------------------------

PRODUCT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["failover-agent", "/failover-agent", " failover-agent"])
def test_the_name_of_compose_is_refused_among_the_containers(name: str) -> None:
    with pytest.raises(Unfit, match="the agent itself runs in"):
        check_container(name)
    assert check_container("failover-agent-2") == "failover-agent-2"


def test_check_knows_an_agent_under_another_name() -> None:
    agent = {"Config": {"Labels": {"org.opencontainers.image.title": "failover-agent"}}}
    inspected: dict[str, dict[str, Any]] = {
        "web": {"Config": {"Labels": {}}},
        "guardian": agent,
        "db": {},
    }
    [finding] = of_agents(inspected)
    assert (finding.level, finding.subject) == (Level.ERROR, "container guardian")
    assert "would stop itself" in finding.sentence


def test_image_and_compose_file_bear_the_name_that_is_looked_for() -> None:
    assert f'image.title="{AGENT}"' in (PRODUCT / "Dockerfile").read_text()
    compose = (PRODUCT / "compose.yaml").read_text()
    assert compose.count(f"container_name: {AGENT}\n") == 2
