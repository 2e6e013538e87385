"""What was refused: listed, looked at, and tried again after a fix, or dismissed."""
