"""PostgreSQL with TimescaleDB and Mosquitto without Docker and without root, from Debian packages."""
