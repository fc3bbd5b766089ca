"""`failover-agent status`: who is active, is all well, and what is not.

Where no agent answers it tells what the record and the journal on this disk say, and exits with 4.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from failover_agent.cli import control, disk, output
from failover_agent.cli.output import Paint, clean, length
from failover_agent.core.transitions import REASONS
from failover_agent.errors import ExitCode, NoAgentError

REDRAW_S = 1.0
REFUSED = os.strerror(errno.ECONNREFUSED)
"""What the agent says of a peer whose host answers that nobody listens."""

_LEADING = frozenset({"promoting", "active", "demoting", "failed"})
_LEFT = 12
"""Columns of the names on the left, below the containers."""


def main(arguments: argparse.Namespace) -> int:
    """0 fine, 3 degraded, 4 nobody answers."""
    where = control.places(arguments)
    if arguments.watch:
        return _watch(where)
    try:
        status = control.ask(where, "/v1/status")
    except NoAgentError as error:
        _tell_from_disk(where, error, as_json=arguments.json)
        return error.exit_code
    if arguments.json:
        output.say(json.dumps(status, indent=2, ensure_ascii=False))
    else:
        output.say(render(status, output.paint()))
    return exit_code(status)


def _watch(where: tuple[control.Place, ...]) -> int:
    """Again each second until Ctrl-C; then the code of what was shown last."""
    code = ExitCode.FINE
    waiting = threading.Event()
    try:
        while True:
            try:
                status = control.ask(where, "/v1/status")
                output.redraw(render(status, output.paint()))
                code = exit_code(status)
            except NoAgentError as error:
                output.redraw(output.paragraph(str(error)))
                code = error.exit_code
            waiting.wait(REDRAW_S)
    except KeyboardInterrupt:
        return code


def _tell_from_disk(
    where: tuple[control.Place, ...], error: NoAgentError, *, as_json: bool
) -> None:
    known = disk.read(where)
    if as_json:
        content = {"agent": None, "error": str(error), "known": [disk.as_json(k) for k in known]}
        output.say(json.dumps(content, indent=2, ensure_ascii=False))
        return
    output.complain(error)
    for each in known:
        output.say("\n".join(disk.lines(each)))


# --- what it means --------------------------------------------------------------------------------


def exit_code(status: Mapping[str, Any]) -> ExitCode:
    """Fine: one node active with all its containers, the other able to take over, no alarm.

    A witness has nothing but alarms to be judged by.
    """
    if _is_witness(status):
        return ExitCode.DEGRADED if status["alarms"] else ExitCode.FINE
    peer = status["peer"] or {}
    leads = status["phase"] == "active" and all(c["state"] == "up" for c in status["containers"])
    follows = status["phase"] == "standby" and peer.get("phase") == "active"
    is_fine = (leads or follows) and status["redundancy"]["ok"] and not status["alarms"]
    return ExitCode.FINE if is_fine else ExitCode.DEGRADED


def render(status: Mapping[str, Any], paint: Paint) -> str:
    """The status for people, at most 80 columns wide; the first line says what matters most."""
    if _is_witness(status):
        return _render_witness(status, paint)
    code = exit_code(status)
    colour = "green" if code is ExitCode.FINE else "red" if _is_down(status) else "yellow"
    parts = [
        "\n".join(paint(line, "bold", colour) for line in _broken(headline(status))),
        "\n".join(_containers(status, paint)),
        "\n".join(_facts(status)),
        *(_alarm(alarm, paint) for alarm in status["alarms"]),
    ]
    return "\n\n".join(part for part in parts if part)


def _is_witness(status: Mapping[str, Any]) -> bool:
    return bool(status["role"] == "witness")


def _render_witness(status: Mapping[str, Any], paint: Paint) -> str:
    """A line for each pair; ENDS IN is when its vote is free again unless it is renewed."""
    pairs, alarms = status["clusters"], status["alarms"]
    told = f"WITNESS of {_counted(len(pairs), 'pair')}, for {length(status['since_s'] or 0.0)}"
    if alarms:
        told += f"; {_counted(len(alarms), 'alarm')}"
    rows: list[tuple[str, ...]] = [
        ("PAIR", "TERM", "VOTE", "ENDS IN", "PRIMARY HEARD", "BACKUP HEARD")
    ]
    rows += [_of_pair(pair) for pair in pairs]
    head, *lines = output.columns(rows)
    parts = [
        paint(told, "bold", "yellow" if alarms else "green"),
        "\n".join([paint(head, "dim"), *lines]),
        _fact("agent", f"version {status['version']}, pid {status['pid']}"),
        *(_alarm(alarm, paint) for alarm in alarms),
    ]
    return "\n\n".join(parts)


def _of_pair(pair: Mapping[str, Any]) -> tuple[str, ...]:
    ends_in_s, heard = pair["remaining_s"], pair["last_heard_s"]
    ends_in = "" if ends_in_s is None else length(ends_in_s)
    return (
        output.cut(clean(pair["cluster"]), 24),
        str(pair["term"]),
        pair["holder"] or "free",
        "on hold" if pair["hold"] else ends_in,
        *(
            "never" if heard.get(role) is None else f"{length(heard[role])} ago"
            for role in ("primary", "backup")
        ),
    )


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def headline(status: Mapping[str, Any]) -> str:
    """The one thing that matters."""
    cluster, phase, peer = status["cluster"], status["phase"], status["peer"] or {}
    this = f"this node ({status['role']})"
    lasting = f"for {length(status['since_s'] or 0.0)}"
    if phase in _LEADING:
        word = phase.upper() if phase in {"active", "failed"} else phase
        return (
            f"{cluster}: {word} on {this}, term {status['term']}, {lasting}; "
            f"{_peer_as_standby(peer)}"
        )
    left_running = status.get("left_running")  # An agent of before knows of none.
    if wait := status.get("waits"):
        waits = f"waits to hear the {_of_wait(wait)}"
        if left_running:
            return f"{cluster}: {waits}; {this} is starting, and what runs here goes on running"
        return f"{cluster}: NOBODY is seen to be active; {this} {waits}"
    readiness = "" if phase != "standby" else " and ready" if status["ready"] else " but NOT READY"
    here = f"{this} is {phase}{readiness}, {lasting}"
    if peer.get("phase") in _LEADING:
        word = "ACTIVE" if peer["phase"] == "active" else peer["phase"]
        silent = "" if peer["reachable"] else ", but SILENT"
        return f"{cluster}: {word} on the {peer['role']}, term {peer['term']}{silent}; {here}"
    if left_running:
        return f"{cluster}: nobody leads yet, but what runs here is left running; {here}"
    if peer.get("reachable") and peer.get("running"):
        if any(container["state"] == "up" for container in status["containers"]):
            return f"{cluster}: nobody leads, and containers run on BOTH nodes; {here}"
        return f"{cluster}: nobody leads yet, but containers run on the {peer['role']}; {here}"
    return f"{cluster}: NOBODY is seen to be active; {here}"


def _of_wait(wait: Mapping[str, Any]) -> str:
    left_s = wait["remaining_s"]
    left = "" if left_s is None else f", {length(left_s)} left"
    return f"{wait['for']} ({wait['setting']}{left})"


def _broken(text: str) -> list[str]:
    """In two lines where one is too short."""
    first, _, second = clean(text).partition("; ")
    lines = [text] if len(text) <= output.WIDTH else [f"{first};", f"  {second}"]
    return [output.cut(line) for line in lines]


def _peer_as_standby(peer: Mapping[str, Any]) -> str:
    role = peer.get("role", "peer")
    if not peer.get("reachable"):
        return f"{role} is SILENT" if peer.get("phase") else f"{role} was NEVER HEARD"
    if peer["phase"] in _LEADING:
        return f"{role} is {peer['phase'].upper()} TOO"
    return f"{peer['phase']} {role} is {'ready' if peer['ready'] else 'NOT READY'}"


def _is_down(status: Mapping[str, Any]) -> bool:
    """Is the service, as far as this node can see, not running whole anywhere?"""
    peer = status["peer"] or {}
    if status["phase"] == "active":
        return any(container["state"] == "down" for container in status["containers"])
    if status.get("left_running") and all(c["state"] == "up" for c in status["containers"]):
        return False
    return peer.get("phase") != "active" or not peer.get("reachable")


# --- the lines ------------------------------------------------------------------------------------


def _containers(status: Mapping[str, Any], paint: Paint) -> list[str]:
    leads = status["phase"] in _LEADING
    rows = [("CONTAINER", "STATE", "DOWN FOR", "RESTARTS", "DETAIL")]
    for container in status["containers"]:
        is_stopped = container["state"] == "down" and not leads
        down_for_s = None if is_stopped else container["down_for_s"]
        rows.append(
            (
                output.cut(clean(container["name"]), 28),
                "stopped" if is_stopped else container["state"],
                "" if down_for_s is None else length(down_for_s),
                str(container["restarts"]),
                clean(container["detail"]),
            )
        )
    head, *lines = output.columns(rows)
    return [
        paint(head, "dim"),
        *(
            paint(line, "red") if row[1] == "down" else line
            for row, line in zip(rows[1:], lines, strict=True)
        ),
    ]


def _facts(status: Mapping[str, Any]) -> Iterator[str]:
    yield _fact("reason", _reason(status["reason"]))
    if status["failed_because"] and "failed" not in {alarm["code"] for alarm in status["alarms"]}:
        yield _fact("failed", status["failed_because"])
    if status.get("refused_because"):
        yield _fact("asked", f"to run the service, but {status['refused_because']}")
    peer = status["peer"]
    if peer:
        yield _fact("peer", _of_peer(peer))
        if peer["reachable"] and peer["phase"] not in _LEADING:
            yield from map(_bullet, peer["not_ready_because"] or ())
        yield from _paths(peer)
    if status["lease"]["held"]:
        yield _fact("lease", _of_lease(status["lease"]))
    if status["arbiter"] is not None:
        yield _fact("arbiter", _of_arbiter(status["arbiter"]))
        yield from _paths(status["arbiter"])
    if status["phase"] == "standby" and not status["ready"]:
        yield _fact("this node", "not ready:")
        yield from map(_bullet, status["not_ready_because"])
    if status["held"] is not None:
        yield _fact(
            "held",
            f"by the {status['held']['by'] or 'other node'}, which left its containers running: "
            "nobody takes over until it is back",
        )
    if status["overlap"] is not None:
        lasted_s, since_s = status["overlap"]["lasted_s"], status["overlap"]["since_s"]
        lasted = "still" if lasted_s is None else f"for {length(lasted_s)}"
        yield _fact("overlap", f"both nodes ran {lasted}; it began {length(since_s)} ago")
    if not status["alarms"]:
        yield from (_fact("redundancy", f"lost: {why}") for why in _lost_because(status))
    yield _fact("agent", f"version {status['version']}, pid {status['pid']}")


def _reason(code: str) -> str:
    """In words, where this version has some: the agent may be newer."""
    sentence = {str(reason): text for reason, text in REASONS.items()}.get(code)
    return code if sentence is None else f"{code}: {sentence}"


def _lost_because(status: Mapping[str, Any]) -> Sequence[str]:
    lost: Sequence[str] = status["redundancy"]["lost_because"]
    return lost


def _of_peer(peer: Mapping[str, Any]) -> str:
    """What it is; of a silent one, what it was when it was heard last."""
    age_s = peer["heartbeat_age_s"]
    if peer["phase"] is None:
        heard = f"{peer['role']}, never heard"
    elif not peer["reachable"] and age_s is not None:
        was = f"it was {peer['phase']}, term {peer['term']}{_as_it_went(peer)}"
        heard = f"{peer['role']}, last heard {length(age_s)} ago: {was}"
    else:
        heard = ", ".join(_of_reachable(peer))
    if not peer["reachable"] and REFUSED in (peer.get("error") or ""):
        feared = "" if _as_it_went(peer) else ": the containers may run there"
        heard += (
            f". The connection is refused, so its host is up and its agent is not{feared}. "
            "On that host: systemctl start failover-agent"
        )
    return heard


def _as_it_went(peer: Mapping[str, Any]) -> str:
    """Of one that said goodbye: that it had stopped everything."""
    if not peer.get("ending") or peer.get("running") != 0:  # Not told by an agent of before.
        return ""
    return f", and had stopped all containers and given term {peer['released_term']} back"


def _of_reachable(peer: Mapping[str, Any]) -> Iterator[str]:
    yield peer["role"]
    yield peer["phase"]
    yield f"term {peer['term']}"
    if peer["heartbeat_age_s"] is not None:
        yield f"heard {length(peer['heartbeat_age_s'])} ago"
    if peer["phase"] not in _LEADING and peer["ready"] is not None:
        yield "ready" if peer["ready"] else "not ready:"


def _paths(voter: Mapping[str, Any]) -> Iterator[str]:
    """The ways to it, where there is more than one; an agent of before knows of none."""
    paths = voter.get("paths") or ()
    if len(paths) > 1:
        yield from (_bullet(_of_path(path)) for path in paths)


def _of_path(path: Mapping[str, Any]) -> str:
    if path["reachable"] is None:
        return f"{path['endpoint']}: nothing known yet"
    if path["reachable"]:
        return f"{path['endpoint']} answers"
    lasting = "" if path["silent_for_s"] is None else f" for {length(path['silent_for_s'])}"
    return f"{path['endpoint']} is SILENT{lasting}: {path['error']}"


def _of_lease(lease: Mapping[str, Any]) -> str:
    left = "on hold" if lease["remaining_s"] is None else f"{length(lease['remaining_s'])} left"
    return f"held, {left}; votes of {', '.join(lease['votes'])}"


def _of_arbiter(arbiter: Mapping[str, Any]) -> str:
    if arbiter["reachable"]:
        return f"{arbiter['kind']}, reachable"
    error = arbiter.get("error")
    return f"{arbiter['kind']}, SILENT{f': {error}' if error else ''}"


def _alarm(alarm: Mapping[str, Any], paint: Paint) -> str:
    lasting = "" if alarm["since_s"] is None else f", for {length(alarm['since_s'])}"
    head = f"  ALARM {clean(alarm['code'])}{lasting}"
    return f"{paint(head, 'yellow')}\n{output.paragraph(alarm['sentence'], ' ' * 4)}"


def _fact(name: str, text: str) -> str:
    return output.paragraph(text, f"  {name.ljust(_LEFT)}", " " * (_LEFT + 2))


def _bullet(text: str) -> str:
    indent = " " * (_LEFT + 2)
    return output.paragraph(text, f"{indent}- ", f"{indent}  ")
