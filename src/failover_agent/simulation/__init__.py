"""The world in virtual time around the shipped core: network, engines, clocks, checkers."""
