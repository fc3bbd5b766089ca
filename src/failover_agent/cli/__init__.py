"""The commands: arguments in, sentences and exit codes out; one module a command."""
