"""Data to files: what `fleetwatt export` writes, in one snapshot, in constant memory."""
