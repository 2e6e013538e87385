"""The tests; a package, so that they can share builders whatever else is installed under this name."""
