"""The dashboard: pages for people, without data of their own; all of it comes from the API."""
