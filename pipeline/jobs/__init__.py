"""What encode and decode jobs share: plan, records, workers, progress, finish."""
