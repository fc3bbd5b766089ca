"""`python -m failover_agent.simulation`."""

import sys

from failover_agent.simulation.run import main

if __name__ == "__main__":
    sys.exit(main())
