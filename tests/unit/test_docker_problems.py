"""adapters/docker/problems.py: what no engine of the tests can be brought to say."""

import errno
import ssl

import aiodocker
import aiohttp
import pytest

from failover_agent.adapters.docker.problems import denied, problem


def tls_error(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, f"[SSL: {reason}]")
    error.reason = reason
    return error


def wrapped(error: Exception) -> Exception:
    """As aiodocker and aiohttp hand on what happened below them."""
    outer = aiodocker.DockerError(900, "Cannot connect to Docker Engine")
    outer.__context__ = aiohttp.ClientError("broken")
    outer.__context__.__cause__ = error
    return outer


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (tls_error("TLSV13_ALERT_CERTIFICATE_REQUIRED"), "it wants a certificate of ours: docker."),
        (tls_error("TLSV1_ALERT_UNKNOWN_CA"), "it does not trust the certificate that we show"),
        (tls_error("SSLV3_ALERT_CERTIFICATE_EXPIRED"), "the certificate that we show has expired"),
        (tls_error("RECORD_LAYER_FAILURE"), "it speaks no TLS there: is it the port of an engine"),
        (tls_error("SOMETHING_NEW"), "no TLS with the engine (something new)"),
        (OSError(errno.EHOSTUNREACH, "No route"), "no way leads to that host: is docker.host the"),
        (
            OSError(errno.EACCES, "Denied"),
            "no permission to use it: run as root, or as a member of",
        ),
        (OSError(errno.EPIPE, "Broken pipe"), "the connection broke off ("),
    ],
)
def test_each_has_its_sentence(error: Exception, said: str) -> None:
    assert problem(wrapped(error), shows_certificate=True).startswith(said)


def test_a_certificate_of_tomorrow_asks_for_the_clock() -> None:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code, error.verify_message = 9, "certificate is not yet valid"

    said = problem(wrapped(error), shows_certificate=False)
    assert said == "the engine's certificate is not valid yet: is this host's clock right?"


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_proxy_without_its_engine(status: int) -> None:
    error = aiodocker.DockerError(status, "<html>a page</html>")

    said = f"a proxy in front of the engine cannot reach it (status {status})"
    assert problem(error, shows_certificate=False) == said


def test_a_denial_names_the_permission_as_the_proxy_does() -> None:
    page = "<html><body><h1>403 Forbidden</h1></body></html>"
    proxy = "a proxy in front of the engine denies"

    assert denied("GET", "/v1.41/events", page) == (
        f"{proxy} GET /events: docker-socket-proxy needs EVENTS=1"
    )
    assert denied("POST", "/v1.41/containers/ab/stop", page) == (
        f"{proxy} POST /containers/ab/stop: docker-socket-proxy needs POST=1, and CONTAINERS=1 or "
        "ALLOW_STOP=1"
    )
    assert denied("DELETE", "/v1.41/containers/ab", page) == f"{proxy} DELETE /containers/ab"


def test_an_engine_that_asks_a_plugin_is_no_proxy() -> None:
    words = '{"message":"authorization denied by plugin opa: not today"}\n'

    assert denied("POST", "/v1.41/containers/ab/start", words) == (
        "the engine's authorization plugin denies POST /containers/ab/start: "
        '{"message":"authorization denied by plugin opa: not today"}'
    )
