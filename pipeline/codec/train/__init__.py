"""Trains a codec and exports it in the published form."""
