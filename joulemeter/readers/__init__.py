"""Readers of recordings that other programs made; each is found through the entry points `joulemeter.readers`."""
