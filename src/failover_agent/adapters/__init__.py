"""TOUCHES THE WORLD. One outside thing a file; events out, effects in."""
