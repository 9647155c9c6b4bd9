"""Instrument drivers: one folder each, reached through the registry."""
