"""The runtime a bundle pins: reads job.json, prepares data, trains, proves that it runs what was planned."""

__version__ = "0.1.0"
