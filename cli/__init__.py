"""The command latentset: above all parts, imported by none."""
