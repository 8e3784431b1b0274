"""gpudaemon: a telemetry daemon for GPU hosts that a sick GPU cannot stall."""

__version__ = "0.1.0"
