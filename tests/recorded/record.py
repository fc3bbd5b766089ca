"""Records what a real Docker Engine answers and reports, for the adapter's tests.

    python -m tests.recorded.record [RELEASE]

builds one lab host with an engine of its own, the machine's or one of tests/lab/engine_root.py (as
root; scripts/install-packages first), puts containers into every state that the agent must tell
apart, and writes the engine's own words to tests/recorded/engine-VERSION/. The README beside this
file says what is in there.
"""

import json
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.lab.engine_api import Answer
from tests.lab.image import IMAGE
from tests.lab.lab import Lab
from tests.lab.until import until

HERE = Path(__file__).parent
COMPOSE_LABELS = {"com.docker.compose.project": "shop", "com.docker.compose.service": "web"}
STAYS = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.05; done"]
IGNORES_TERM = ["sh", "-c", "trap '' TERM; while :; do sleep 0.05; done"]
EATS_MEMORY = ["dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1"]
MEMORY_BYTES = 16 * 1024 * 1024
ONE_MS = 1_000_000  # the engine counts health intervals in ns

# Of /info, what a reader of these files has no use for, and what names a machine or a registry.
PRIVATE_INFO = (
    "ID", "RegistryConfig", "IndexServerAddress", "HttpProxy", "HttpsProxy", "NoProxy",
    "KernelVersion", "MemTotal", "Warnings",
)  # fmt: skip


class Recorder:
    """Asks an engine, and writes down what it said."""

    def __init__(self, ask: Callable[..., Answer], folder: Path) -> None:
        self.ask = ask
        self._folder = folder
        self._answers: list[dict[str, Any]] = []

    def must(self, method: str, path: str, body: object = None) -> Answer:
        answer = self.ask(method, path, body)
        assert answer.status < 400, f"{method} {path}: {answer.status} {answer.text}"
        return answer

    def create(self, name: str, command: list[str], **config: Any) -> str:
        """Creates a container and gives its id. `host` among the options is the HostConfig."""
        host = {"NetworkMode": "host", **config.pop("host", {})}
        body = {"Image": IMAGE, "Cmd": command, "HostConfig": host, **config}
        return str(self.must("POST", f"/containers/create?name={name}", body).json["Id"])

    def post(self, name: str, verb: str) -> None:
        self.must("POST", f"/containers/{name}/{verb}")

    def run(self, name: str, command: list[str], **config: Any) -> str:
        container_id = self.create(name, command, **config)
        self.post(name, "start")
        return container_id

    def remove(self, *names: str) -> None:
        for name in names:
            self.must("DELETE", f"/containers/{name}?force=1")

    def wait(self, name: str, what: str, test: Callable[[dict[str, Any]], bool]) -> None:
        def holds() -> bool:
            return test(self.must("GET", f"/containers/{name}/json").json["State"])

        until(holds, 30, f"{name} {what}")

    def keep(self, file: str, value: object) -> None:
        text = json.dumps(value, indent=1, ensure_ascii=False)
        (self._folder / file).write_text(text + "\n")

    def keep_inspect(self, name: str) -> None:
        inspected = self.must("GET", f"/containers/{name}/json").json
        del inspected["GraphDriver"]  # folders, and nothing else
        self.keep(f"inspect-{name}.json", inspected)

    def keep_answer(self, situation: str, method: str, path: str, body: object = None) -> None:
        """For what is refused, or does nothing: status and body."""
        answer = self.ask(method, path, body)
        said = answer.json if answer.text else None
        request = f"{method} {path}"
        self._answers.append(
            {"situation": situation, "request": request, "status": answer.status, "body": said}
        )
        self.keep("answers.json", self._answers)

    def keep_events(self, situation: str, act: Callable[[], object], expected: str) -> None:
        """The stream from before `act` until all `expected` have come, in whatever order."""
        since = _engine_time()
        act()

        def stream() -> str:
            text = self.must("GET", f"/events?since={since}&until={_engine_time()}").text
            actions = [json.loads(line)["Action"] for line in text.splitlines()]
            came = Counter(action.partition(":")[0] for action in actions)
            return text if Counter(expected.split()) <= came else ""

        text = until(stream, 30, f"{situation}: events {expected}")
        (self._folder / f"events-{situation}.jsonl").write_text(text)


def _engine_time() -> str:
    """`since` and `until` as the engine takes them: its wall clock, which here is ours."""
    now_ns = time.time_ns()
    return f"{now_ns // 10**9}.{now_ns % 10**9:09d}"


def _health(command: str, interval_ms: int = 300) -> dict[str, Any]:
    return {
        "Test": ["CMD-SHELL", command],
        "Interval": interval_ms * ONE_MS,
        "Timeout": 2000 * ONE_MS,
        "Retries": 2,
    }


def memory() -> dict[str, int]:
    return {"Memory": MEMORY_BYTES, "MemorySwap": MEMORY_BYTES}


def record_engine(r: Recorder) -> None:
    version = r.must("GET", "/version").json
    for part in (version, *(component["Details"] for component in version["Components"])):
        part.pop("KernelVersion", None)
    r.keep("version.json", version)
    info = r.must("GET", "/info").json
    r.keep("info.json", {key: value for key, value in info.items() if key not in PRIVATE_INFO})


def record_states(r: Recorder) -> None:
    """Containers in every state, inspected one by one, then listed together."""
    always = {"RestartPolicy": {"Name": "always"}}
    r.create("created", STAYS)
    r.run("running", STAYS, Labels=COMPOSE_LABELS, host=always)
    r.run("paused", STAYS)
    r.post("paused", "pause")
    r.run("restarting", ["sh", "-c", "exit 3"], host=always)
    r.run("exited-0", ["true"])
    r.run("exited-3", ["sh", "-c", "exit 3"])
    r.run("exited-137", STAYS)
    r.post("exited-137", "kill")
    r.run("oom-killed", EATS_MEMORY, host=memory())
    r.create("start-failed", ["no-such-command"])
    r.keep_answer("start, no such command", "POST", "/containers/start-failed/start")
    r.run("health-starting", STAYS, Healthcheck=_health("true", interval_ms=3_600_000))
    r.run("health-healthy", STAYS, Healthcheck=_health("echo fine"))
    r.run("health-unhealthy", STAYS, Healthcheck=_health("echo sick; false"))
    for name in ("exited-0", "exited-3", "exited-137", "oom-killed"):
        r.wait(name, "exited", lambda state: bool(state["Status"] == "exited"))
    r.wait("health-healthy", "", lambda state: bool(state["Health"]["Status"] == "healthy"))
    r.wait("health-unhealthy", "", lambda state: bool(state["Health"]["Status"] == "unhealthy"))
    names = (
        "created running paused restarting exited-0 exited-3 exited-137 oom-killed start-failed "
        "health-starting health-healthy health-unhealthy"
    ).split()
    r.wait("restarting", "in backoff", lambda state: bool(state["Status"] == "restarting"))
    for name in names:
        r.keep_inspect(name)
    r.keep("containers.json", r.must("GET", "/containers/json?all=1").json)
    r.remove(*names)


def record_answers(r: Recorder, host_folder: Callable[[str], Path]) -> None:
    """What is refused, and what is answered although nothing happens."""
    volume = host_folder("/run/volume")
    volume.mkdir()
    mount = {"Mounts": [{"Type": "bind", "Source": "/run/volume", "Target": "/data"}]}
    r.run("running", STAYS)
    r.create("stopped", STAYS)
    r.create("no-network", STAYS, host={"NetworkMode": "backend"})
    r.create("no-volume", STAYS, host=mount)
    r.run("paused", STAYS)
    r.post("paused", "pause")
    volume.rmdir()
    for verb in ("json", "start", "stop", "kill"):
        method = "GET" if verb == "json" else "POST"
        r.keep_answer(f"{verb}, no such container", method, f"/containers/missing/{verb}")
    r.keep_answer("start, already running", "POST", "/containers/running/start")
    r.keep_answer("start, paused", "POST", "/containers/paused/start")
    r.keep_answer("start, network missing", "POST", "/containers/no-network/start")
    r.keep_answer("start, bind mount missing", "POST", "/containers/no-volume/start")
    r.keep_answer("stop, already stopped", "POST", "/containers/stopped/stop")
    r.keep_answer("kill, not running", "POST", "/containers/stopped/kill")
    taken = {"Image": IMAGE, "Cmd": STAYS}
    r.keep_answer("create, name taken", "POST", "/containers/create?name=stopped", taken)
    r.keep_answer("create, no such image", "POST", "/containers/create", {"Image": "none:1"})
    r.keep_answer("delete, running", "DELETE", "/containers/running")
    wrong = {"RestartPolicy": {"Name": "sometimes"}}
    r.keep_answer("update, no such policy", "POST", "/containers/stopped/update", wrong)
    r.keep_answer("client too new", "GET", "/v1.99/containers/json")
    r.remove("running", "stopped", "no-network", "no-volume", "paused")


def record_events(r: Recorder) -> None:
    """One stream per happening, from its first event to its last."""

    def web(**config: Any) -> str:
        return r.run("web", STAYS, Labels=COMPOSE_LABELS, **config)

    def fails_to_start() -> None:
        r.create("broken", ["no-such-command"])
        assert r.ask("POST", "/containers/broken/start").status == 400
        r.remove("broken")

    def recreated() -> None:
        """As `docker compose up --force-recreate` does it."""
        r.create("0123456789ab_web", STAYS, Labels=COMPOSE_LABELS)
        r.post("web", "stop?t=1")
        r.must("DELETE", "/containers/web?v=1")
        r.post("0123456789ab_web", "rename?name=web")
        r.post("web", "start")

    policy = {"RestartPolicy": {"Name": "no"}}
    r.keep_events("run", web, "start")
    r.keep_events("update", lambda: r.must("POST", "/containers/web/update", policy), "update")
    r.keep_events("kill-hup", lambda: r.post("web", "kill?signal=HUP"), "kill")
    r.keep_events("kill", lambda: r.post("web", "kill"), "die disconnect")
    r.keep_events("start", lambda: r.post("web", "start"), "start")
    r.keep_events("stop", lambda: r.post("web", "stop"), "die disconnect stop")
    r.post("web", "start")
    r.keep_events("restart", lambda: r.post("web", "restart?t=1"), "die disconnect restart")
    r.keep_events("pause", lambda: r.post("web", "pause"), "pause")
    r.keep_events("unpause", lambda: r.post("web", "unpause"), "unpause")
    r.keep_events("rename", lambda: r.post("web", "rename?name=web-old"), "rename")
    r.post("web-old", "rename?name=web")
    r.keep_events("recreate", recreated, "die disconnect stop destroy start")
    r.keep_events("rm-force", lambda: r.remove("web"), "die disconnect destroy")
    r.keep_events("start-failed", fails_to_start, "destroy")

    r.run("web", IGNORES_TERM)
    r.keep_events("stop-ignored", lambda: r.post("web", "stop?t=1"), "die disconnect stop")
    r.remove("web")
    exits = ["sh", "-c", "exit 3"]
    r.keep_events("exit-3", lambda: r.run("web", exits), "die disconnect")
    r.remove("web")
    r.keep_events("oom", lambda: r.run("web", EATS_MEMORY, host=memory()), "oom die disconnect")
    r.remove("web")
    always = {"RestartPolicy": {"Name": "always"}}
    dies = ["sh", "-c", "sleep 0.2; exit 3"]
    r.keep_events("crash-loop", lambda: r.run("web", dies, host=always), "die disconnect " * 4)
    r.remove("web")
    turns = _health("rm /tmp/well 2>/dev/null || ! touch /tmp/well")
    turns["Retries"] = 1
    r.keep_events("health", lambda: web(Healthcheck=turns), "health_status " * 4)
    r.remove("web")


def main() -> None:
    release = sys.argv[1] if sys.argv[1:] else ""
    with Lab([], releases=(release, "")) as lab:
        engine = lab.a.engine
        version: str = engine.must("GET", "/version").json["Version"]
        series = ".".join(version.split(".")[:2])
        folder = HERE / f"engine-{series}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        recorder = Recorder(engine.api, folder)
        record_engine(recorder)
        record_states(recorder)
        record_answers(recorder, lab.a.host.path)
        record_events(recorder)


if __name__ == "__main__":
    main()
