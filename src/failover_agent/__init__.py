"""Active/passive failover of Docker containers between two hosts."""

__version__ = "0.1.0"
