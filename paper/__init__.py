"""Reproduces the paper: experiments, sweeps, report."""
