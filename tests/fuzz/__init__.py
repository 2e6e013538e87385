"""Fuzzing: whatever bytes come, nothing crashes, nothing hangs, and nothing that breaks a rule is stored."""
