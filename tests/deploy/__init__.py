"""Deployment files: held against their schemas, and what they command run without containers."""
