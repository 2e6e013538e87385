"""Efficiency alerts are read and delivered; the database itself opens and closes them after each refresh."""
