"""The pure core, plainly."""
