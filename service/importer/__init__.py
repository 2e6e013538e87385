"""Files to readings: CSV with a column mapping, and NDJSON, through the same writer as everything else."""
