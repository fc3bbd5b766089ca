"""Transcripts: events in, phases and effects out, for people to read."""
