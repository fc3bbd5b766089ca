"""What shows that failover-agent keeps its promises."""
