"""The commands: arguments in, one call of the API, a result shown."""
