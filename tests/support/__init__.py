"""What tests share: servers, builders and strategies, reckoning in plain Python. No tests in here."""
