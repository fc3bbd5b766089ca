"""Every safety rule removed or bent in turn, each caught."""
