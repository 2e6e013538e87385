"""Charging sessions: the link between a meter's AC energy and a vehicle's DC energy."""
