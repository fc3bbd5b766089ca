"""What a signal means that has no meaning yet."""

import logging

log = logging.getLogger(__name__)

NO_RELOAD = "SIGHUP reloads nothing in this version: restart the agent, which moves nothing"


def tell_of_no_reload() -> None:
    """SIGHUP would end a process that does not heed it, and is passed on by the guard."""
    log.warning("signal", extra={"fields": {"sentence": NO_RELOAD}})
