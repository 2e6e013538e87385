"""What has to be done again and again, by one process at a time: for now, the refresh of the rollups."""
