"""A month and a configuration become one committed run: read, replay, write, commit. Market, replay, search and runs meet here."""
