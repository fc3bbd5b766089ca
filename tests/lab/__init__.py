"""Two hosts on one machine, each with a real Docker Engine, and the ways to break them."""
