"""`failover_agent.run` without the lower limit of heartbeat_timeout, for bench/detect.py alone.

    python bench/short.py failover_agent.run run --role primary --config FILE

The configuration refuses less than a second; what detect.py measures is why.
"""

import runpy
import sys

from failover_agent.config.keys import Keys


def main() -> None:
    field = Keys.model_fields["heartbeat_timeout"]
    field.metadata = [it for it in field.metadata if not hasattr(it, "ge")]
    Keys.model_rebuild(force=True)
    module, run, *arguments = sys.argv[1:]
    assert run == "run"
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
