"""What every part of the platform agrees on: the event, how bytes become one, why one is rejected, the settings."""

__version__ = "0.1.0"
