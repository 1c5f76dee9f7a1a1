"""Learned codecs: finding, loading and training them."""
