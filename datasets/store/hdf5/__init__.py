"""The store as one HDF5 file (docs/store-spec.md)."""
