"""What a process of ours settles with the system it runs on."""

import logging
import resource

log = logging.getLogger(__name__)

NO_RELOAD = "SIGHUP reloads nothing in this version: restart the agent, which moves nothing"


def tell_of_no_reload() -> None:
    """SIGHUP would end a process that does not heed it, and is passed on by the guard."""
    log.warning("signal", extra={"fields": {"sentence": NO_RELOAD}})


def allow_many_files() -> None:
    """As many open ones as the system lets us have: usually 1,024, unless one asks for more.

    A witness has a lock and two connections for each pair, a node a pidfd for each container.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
