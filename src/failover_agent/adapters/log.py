"""The log: one line a fact, `key=value` or JSON, written beside the loop.

A fact is logged as `log.info("container", extra={"fields": {"name": "web", "to": "down"}})`; the
field `sentence` comes last, in quotes. What other packages log is one message without fields.
"""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import IO

from failover_agent.adapters.clock import wall_text
from failover_agent.adapters.journal import alarms_between, transitions_of
from failover_agent.adapters.worker import Worker
from failover_agent.core.effects import RepairContainer
from failover_agent.core.events import Event
from failover_agent.core.plan import Step
from failover_agent.core.state import State

LINES_WAITING = 2000
"""So many lines wait for a terminal or a log daemon that hangs; what comes then is lost."""

FLUSH_S = 1.0

log = logging.getLogger(__name__)


def set_up(*, format_name: str, level: str, stream: IO[str] | None = None) -> None:
    """Send everything that is logged, by anybody, to `stream` (stderr); "text" or "json"."""
    handler = BesideTheLoop(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if format_name == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


class TextFormatter(logging.Formatter):
    """2026-11-22T03:04:05.123Z INFO transition from=standby to=acquiring "sentence"."""

    def format(self, record: logging.LogRecord) -> str:
        """One line; only a traceback has more."""
        fields = dict(_fields(record))
        sentence = fields.pop("sentence", None)
        parts = [
            wall_text(datetime.fromtimestamp(record.created, UTC)),
            record.levelname,
            record.getMessage().replace("\n", "\\n"),
            *(f"{name}={_text(value)}" for name, value in fields.items()),
        ]
        if sentence:
            parts.append(json.dumps(sentence, ensure_ascii=False))
        if record.exc_info:
            parts.append("\n" + self.formatException(record.exc_info))
        return " ".join(parts)


class JsonFormatter(logging.Formatter):
    """One object a line: time, level, message, and the fields beside them."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, a traceback included."""
        line = {
            "time": wall_text(datetime.fromtimestamp(record.created, UTC)),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class BesideTheLoop(logging.Handler):
    """Writes in a thread. Where the reader of our log hangs, lines are lost and counted."""

    def __init__(self, stream: IO[str]) -> None:
        super().__init__()
        self._stream = stream
        self._worker = Worker("log", limit=LINES_WAITING)
        self._lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Format here, where the record is fresh; write there."""
        line = self.format(record)
        if self._lost:
            line = f"({self._lost} lines lost: the log could not be written)\n{line}"
        if self._worker.offer(lambda: self._write(line)):
            self._lost = 0
        else:
            self._lost += 1

    def flush(self) -> None:
        """Wait a moment for what was logged before; called at the end of the process too."""
        self._worker.drain(FLUSH_S)

    def _write(self, line: str) -> None:
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            self._lost += 1  # The reader has gone, or closed the stream: nobody is left to tell.


class Narrator:
    """Tells what a step changed, a line each: transitions, alarms, containers. Otherwise quiet."""

    def stepped(self, before: State, event: Event, now: float, after: Step) -> None:
        """Said after the step is certain, and before its orders are."""
        _ = event
        for transition in transitions_of(after):
            _tell(logging.INFO, "transition", **transition)
        if before.held_term and after.state.held_term and before.held_term < after.state.held_term:
            _tell(logging.INFO, "term", **{"from": before.held_term, "to": after.state.held_term})
        opened, closed = alarms_between(before, after.state)
        for name in opened:
            sentence = after.state.alarms[name].sentence
            _tell(logging.WARNING, "alarm", **_alarm(name), sentence=sentence)
        for name in closed:
            after_s = now - before.alarms[name].since_s
            _tell(logging.INFO, "alarm ended", **_alarm(name), after_s=after_s)
        _tell_containers(before, after.state)
        _tell_overlap(before, after.state)
        for effect in after.effects:
            if isinstance(effect, RepairContainer):
                _tell(logging.INFO, "repair", name=effect.name, term=effect.term)

    def broke(self, before: State, event: Event, now: float, error: BaseException) -> None:
        """The program is wrong: all that is needed to see why."""
        fields = {"error": repr(error), "event": repr(event), "now": now, "before": repr(before)}
        sentence = "a fault of this program: the process ends, the containers are left as they are"
        _tell(logging.CRITICAL, "broke", **fields, sentence=sentence)


def _alarm(name: str) -> dict[str, object]:
    """Its code, and where there may be several of that, which one."""
    code, _, which = name.partition(" ")
    return {"code": code, "which": which} if which else {"code": code}


def _tell_containers(before: State, after: State) -> None:
    if before.containers is after.containers:
        return
    for name, view in after.containers.items():
        was = before.containers.get(name)
        if was is None or was.state is not view.state:
            was_state = None if was is None else was.state
            fields = {"name": name, "from": was_state, "to": view.state, "sentence": view.detail}
            _tell(logging.INFO, "container", **fields)


def _tell_overlap(before: State, after: State) -> None:
    overlap = after.overlap
    if overlap is None or overlap.ended_at_s is None or overlap == before.overlap:
        return
    length_s = overlap.ended_at_s - overlap.began_at_s
    ended = "the other one has stopped" if after.is_holding else "this one has stopped"
    sentence = f"both nodes were active for so long; {ended}"
    _tell(logging.WARNING, "overlap", length_s=length_s, sentence=sentence)


def _tell(level: int, message: str, **fields: object) -> None:
    log.log(level, message, extra={"fields": fields})


def _fields(record: logging.LogRecord) -> dict[str, object]:
    fields = getattr(record, "fields", None)
    return fields if isinstance(fields, dict) else {}


def _text(value: object) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return str(value).lower()
        case float():
            return f"{value:.3f}".rstrip("0").rstrip(".")
        case _:
            pass
    text = str(value)
    plain = text and not any(
        character in ' "=\\' or not character.isprintable() for character in text
    )
    return text if plain else json.dumps(text, ensure_ascii=False)
