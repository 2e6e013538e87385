"""Proof by counting: a full engine of real processes, faults at random moments, every reading followed."""
