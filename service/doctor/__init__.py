"""What is wrong with an engine, or soon will be: a look at its database, its broker and its settings.

It changes nothing. What cannot be looked at is a finding, not an error.
"""
