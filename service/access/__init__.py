"""Who may call the HTTP service: keys, sign-ins, what they are good for and how often they may be used."""
