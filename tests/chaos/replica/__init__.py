"""What a replica answers, and what the primary must."""
