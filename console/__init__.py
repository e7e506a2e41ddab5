"""The console: a local administrator's terminal."""
