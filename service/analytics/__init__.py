"""Data is read here: latest states, energy and efficiency, and figures about the engine itself."""
