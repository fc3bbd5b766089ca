"""Records what a real etcd answers over its JSON gateway: `python -m tests.recorded.record_etcd`.

Writes etcd-VERSION/answers.json beside this file; needs what scripts/install-packages installs.
"""

import base64
import json
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from failover_agent.adapters.arbiters import parse
from failover_agent.core.policy import Role
from failover_agent.core.register import Entry, Write
from failover_agent.core.state import Holder
from tests.integration.etcd import CLUSTER, Etcd, etcd

HERE = Path(__file__).parent
ENTRY = Entry(Holder(Role.PRIMARY, "0123456789abcdef"), 7, 10.0)
READ = parse.read_body(CLUSTER)
HELD_UP_S = 30


class Recorder:
    """Asks, and keeps what was said."""

    def __init__(self, running: Etcd) -> None:
        self.said: list[dict[str, Any]] = []
        self._running = running
        self.token = ""

    def ask(self, situation: str, path: str, body: dict[str, Any]) -> Any:
        url = f"{self._running.endpoints[0]}/{path}"
        headers = {"Content-Type": "application/json"}
        if self.token:
            headers["Authorization"] = self.token
        said = json.dumps(body).encode()
        request = urllib.request.Request(url, said, headers)
        try:
            with urllib.request.urlopen(request, timeout=HELD_UP_S) as response:
                status, answered = response.status, response.read()
        except urllib.error.HTTPError as error:
            status, answered = error.code, error.read()
        try:
            answer = json.loads(answered)
        except ValueError:
            answer = answered.decode()
        self.said.append(
            {
                "situation": situation,
                "path": path,
                "request": body,
                "status": status,
                "answer": answer,
            }
        )
        return answer


def put(mod_revision: int) -> dict[str, Any]:
    """The body of a transaction that puts ENTRY."""
    answer: Any = None
    return parse.write_body(CLUSTER, Write(mod_revision, ENTRY, answer))


def record_one(folder: Path) -> tuple[str, list[dict[str, Any]]]:
    """An etcd of one member. Also tells its version."""
    with etcd(folder, options=("--quota-backend-bytes", "262144")) as running:
        recorder = Recorder(running)
        recorder.ask("no such key", "v3/kv/range", READ)
        recorder.ask("put where there was no key", "v3/kv/txn", put(0))
        recorder.ask("refused: the key has another mod_revision", "v3/kv/txn", put(0))
        recorder.ask("the key", "v3/kv/range", READ)
        recorder.ask("put where the key has that mod_revision", "v3/kv/txn", put(2))
        running.ctl("del", parse.key_of(CLUSTER))
        recorder.ask("the key was deleted", "v3/kv/range", READ)
        recorder.ask("refused: the key was deleted", "v3/kv/txn", put(3))
        running.ctl("put", parse.key_of(CLUSTER), "")
        recorder.ask("an empty value", "v3/kv/range", READ)
        running.ctl("compact", "5")
        recorder.ask("before the compaction", "v3/kv/range", {**READ, "revision": "1"})
        recorder.ask("no such call", "v3/nothing", {})
        recorder.ask("a key that is not base64", "v3/kv/range", {"key": "!"})
        recorder.ask(
            "a user where there are none", "v3/auth/authenticate", {"name": "a", "password": "b"}
        )
        recorder.token = "no.token"
        recorder.ask("a token where there are no users", "v3/kv/range", READ)
        recorder.token = ""
        with urllib.request.urlopen(f"{running.endpoints[0]}/version", timeout=10) as response:
            version = json.load(response)
        recorder.said.append(
            {
                "situation": "the version",
                "path": "version",
                "request": None,
                "status": 200,
                "answer": version,
            }
        )
        record_users(running, recorder)
        record_full(recorder)
    return version["etcdserver"], recorder.said


def record_users(running: Etcd, recorder: Recorder) -> None:
    """With authentication. The token of root is kept."""
    for name in ("root", "guest"):
        running.ctl("user", "add", f"{name}:{name}-password")
    running.ctl("user", "grant-role", "root", "root")
    running.ctl("auth", "enable")
    authenticate = "v3/auth/authenticate"
    recorder.ask("no token", "v3/kv/range", READ)
    recorder.token = "no.token"
    recorder.ask("a token that has ended", "v3/kv/range", READ)
    recorder.token = ""
    recorder.ask("a wrong password", authenticate, {"name": "root", "password": "wrong"})
    guest = {"name": "guest", "password": "guest-password"}
    recorder.token = recorder.ask("a user", authenticate, guest)["token"]
    recorder.ask("a user without leave", "v3/kv/range", READ)
    recorder.token = ""
    root = {"name": "root", "password": "root-password"}
    recorder.token = recorder.ask("root", authenticate, root)["token"]


def record_full(recorder: Recorder) -> None:
    """Puts until the quota is reached, and keeps the answer that says so."""
    large = base64.b64encode(b"x" * 16000).decode()
    said = list(recorder.said)
    while recorder.ask("filling", "v3/kv/put", {"key": large[:8], "value": large}).get("code") != 8:
        pass
    recorder.said = said
    recorder.ask("no space", "v3/kv/txn", put(0))


def record_without_majority(folder: Path) -> list[dict[str, Any]]:
    """The last of three members. Takes as long as etcd takes to give up."""
    with etcd(folder, 3) as running:
        for member in running.members[1:]:
            member.kill()
        recorder = Recorder(running)
        recorder.ask("no majority: a read", "v3/kv/range", READ)
        recorder.ask("no majority: a transaction", "v3/kv/txn", put(0))
    return recorder.said


def main() -> None:
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as three:
        version, said = record_one(Path(one))
        said += record_without_majority(Path(three))
    folder = HERE / f"etcd-{'.'.join(version.split('.')[:2])}"
    folder.mkdir(exist_ok=True)
    (folder / "answers.json").write_text(json.dumps(said, indent=2) + "\n")
    print(f"{folder.name}/answers.json: {len(said)} answers of etcd {version}")


if __name__ == "__main__":
    main()
