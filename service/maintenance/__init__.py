"""What has to be done again and again, by one process at a time."""
