"""fleetwatt: energy telemetry for EV fleets, on TimescaleDB."""

__version__ = "0.1.0"
