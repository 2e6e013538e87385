"""Who may call the HTTP service: keys, what they are good for, and how often they may be used."""
