"""A real etcd that lets not everybody in: TLS with an authority of its own, users and passwords."""

import asyncio
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from failover_agent.adapters.arbiters import Access
from failover_agent.core.messages import Refusal
from failover_agent.errors import ConfigError
from tests.integration.etcd import KEY, Authority, Etcd, Side, authority, error_of, etcd, side

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

ROOT = ("--user", "root:secret")


async def refusal(node: Side) -> str:
    """Why a beat of it is not answered, without the endpoint in front."""
    return error_of(await node.perform(node.beat())).partition(": ")[2]


# --- TLS ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("authority"), "ours")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("authority"), "other")


@pytest.fixture(scope="module")
def secured(ours: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    """It wants a certificate of its clients too.

    Its own has no common name: an etcd that wants certificates takes no other for its gateway.
    """
    certificate, key = ours.sign("")
    mine, my_key = ours.sign("admin")
    options = ("--cert-file", certificate, "--key-file", key, "--trusted-ca-file", ours.ca)
    client = ("--cacert", ours.ca, "--cert", mine, "--key", my_key)
    with etcd(
        tmp_path_factory.mktemp("etcd"),
        scheme="https",
        options=(*map(str, options), "--client-cert-auth"),
        client=tuple(map(str, client)),
    ) as running:
        yield running


async def test_with_certificates_of_one_authority_it_answers(
    secured: Etcd, ours: Authority
) -> None:
    certificate, key = ours.sign("shop")
    access = Access(ca_file=ours.ca, cert_file=certificate, key_file=key)
    async with side(secured.endpoints, access=access) as primary:
        assert (await primary.polls()).refusal is Refusal.JUST_STARTED
        await primary.wins(1)
        assert (await primary.renews(1)).granted
        (probed,) = await primary.arbiter.probe()

    assert probed.is_fine, probed
    assert secured.value()["term"] == 1


async def test_an_etcd_of_another_authority_is_not_trusted(secured: Etcd, other: Authority) -> None:
    async with side(secured.endpoints, access=Access(ca_file=other.ca)) as primary:
        assert "its certificate is not one to trust (" in error_of(
            await primary.perform(primary.beat())
        )
        (probed,) = await primary.arbiter.probe()

    assert "ca_file in [arbiter]" in probed.todo


async def test_the_host_in_the_endpoint_has_to_be_in_the_certificate(
    secured: Etcd, ours: Authority
) -> None:
    elsewhere = secured.endpoints[0].replace("127.0.0.1", "[::ffff:127.0.0.1]")
    async with side((elsewhere,), access=Access(ca_file=ours.ca)) as primary:
        error = error_of(await primary.perform(primary.beat()))

    assert "its certificate is not one to trust (" in error
    assert "mismatch" in error


async def test_an_etcd_that_wants_a_certificate_of_ours_closes_the_connection(
    secured: Etcd, ours: Authority
) -> None:
    await closes_the_connection(secured.endpoints[0], Access(ca_file=ours.ca))


async def test_plain_http_to_an_etcd_with_tls(secured: Etcd) -> None:
    await closes_the_connection(secured.endpoints[0].replace("https", "http"), Access())


async def test_tls_to_an_etcd_without(tmp_path: Path, ours: Authority) -> None:
    with etcd(tmp_path) as plain:
        endpoint = plain.endpoints[0].replace("http", "https")
        await closes_the_connection(endpoint, Access(ca_file=ours.ca))


async def test_a_connection_that_is_reset_in_the_handshake(ours: Authority) -> None:
    """As etcd does with bytes of ours unread, which is a matter of moments."""

    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        connection = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async with await asyncio.start_server(reset, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        await closes_the_connection(f"https://127.0.0.1:{port}", Access(ca_file=ours.ca))


async def closes_the_connection(endpoint: str, access: Access) -> None:
    """It does not say why, so that we name what it may be."""
    async with side((endpoint,), access=access) as primary:
        error = error_of(await primary.perform(primary.beat()))
        (probed,) = await primary.arbiter.probe()
    assert error == probed.what == f"{endpoint} closes the connection"
    assert probed.todo.startswith("Is it http or https there?")
    assert "cert_file, key_file" in probed.todo


async def test_files_that_are_none_are_said_before_anything_is_asked(
    tmp_path: Path, ours: Authority, other: Authority
) -> None:
    certificate, _ = ours.sign("shop")
    _, wrong_key = other.sign("shop")
    (tmp_path / "empty.pem").write_text("")
    for access, words in (
        (Access(ca_file=tmp_path / "none.pem"), "No such file"),
        (Access(ca_file=tmp_path / "empty.pem"), "no certificates can be read"),
        (Access(cert_file=certificate, key_file=wrong_key), "cannot be used"),
        (Access(cert_file=tmp_path / "none.pem"), "No such file"),
    ):
        with pytest.raises(ConfigError, match=words):
            async with side(("https://127.0.0.1:1",), access=access):
                pass


# --- users ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    """Users: root; shop, who may; guest, who may nothing. Tokens last for two seconds."""
    with etcd(tmp_path_factory.mktemp("etcd"), options=("--auth-token-ttl", "2")) as running:
        running.ctl("user", "add", "root:secret")
        running.ctl("user", "grant-role", "root", "root")
        running.ctl("role", "add", "failover")
        running.ctl(
            "role", "grant-permission", "failover", "--prefix=true", "readwrite", "failover-agent/"
        )
        for user in ("shop", "guest"):
            running.ctl("user", "add", f"{user}:{user}-password")
        running.ctl("user", "grant-role", "shop", "failover")
        running.ctl("auth", "enable")
        running.client = ROOT
        yield running


@pytest.fixture
def users(guarded: Etcd) -> Etcd:
    guarded.ctl("del", KEY)
    return guarded


SHOP = Access("shop", "shop-password")


async def test_a_user_who_may_is_served_also_when_his_token_has_ended(users: Etcd) -> None:
    async with side(users.endpoints, access=SHOP) as primary:
        await primary.wins(1)
        users.members[0].kill()
        users.start()
        assert (await primary.renews(1)).granted
        (probed,) = await primary.arbiter.probe()

    assert probed.is_fine, probed


async def test_a_wrong_password_is_told_in_a_sentence(users: Etcd) -> None:
    for access in (Access("shop", "wrong"), Access("nobody", "shop-password"), Access("shop")):
        async with side(users.endpoints, access=access) as primary:
            error = await refusal(primary)
            assert error == f"etcd knows no user {access.username} with this password"
            (probed,) = await primary.arbiter.probe()
            assert probed.todo == "Correct username and password in [arbiter]."
    assert "secret" not in repr(Access("root", "secret"))


async def test_an_etcd_that_wants_a_user_says_so(users: Etcd) -> None:
    async with side(users.endpoints) as primary:
        assert await refusal(primary) == "etcd wants a user and a password"
        (probed,) = await primary.arbiter.probe()

    assert probed.todo == "Set username and password in [arbiter]."


async def test_a_user_without_leave_is_told_which_keys(users: Etcd) -> None:
    async with side(users.endpoints, access=Access("guest", "guest-password")) as primary:
        assert await refusal(primary) == "etcd denies the user guest the keys of failover-agent"
        (probed,) = await primary.arbiter.probe()

    assert "readwrite failover-agent/" in probed.todo


async def test_a_user_where_none_is_asked_for_is_no_fault(tmp_path: Path) -> None:
    with etcd(tmp_path) as open_to_all:
        async with side(open_to_all.endpoints, access=SHOP) as primary:
            await primary.wins(1)
            # Switched on while we speak to it: the user is asked for, and has the password.
            open_to_all.ctl("user", "add", "root:secret")
            open_to_all.ctl("user", "grant-role", "root", "root")
            open_to_all.ctl("user", "add", "shop:shop-password")
            open_to_all.ctl("user", "grant-role", "shop", "root")
            open_to_all.ctl("auth", "enable")
            assert (await primary.renews(1)).granted


async def test_a_full_etcd_grants_nothing_and_says_why(tmp_path: Path) -> None:
    with etcd(tmp_path, options=("--quota-backend-bytes", "65536")) as full:
        async with side(full.endpoints) as primary:
            await primary.wins(1)
            error = ""
            for _ in range(400):
                event = await primary.perform(primary.beat(1, renews=True))
                if hasattr(event, "error"):
                    error = event.error
                    break
            assert error == f"{full.endpoints[0]}: the database of etcd is full"
