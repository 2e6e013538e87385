"""The live stream: commits are announced, changed states read back, and told to whoever listens."""
