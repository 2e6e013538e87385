"""Data enters here and is written: decode, buffer, write. README.md draws it."""
