"""What holds for every test."""

from hypothesis import settings

# How long one example takes says more about the machine than about the code; benchmarks measure that.
settings.register_profile("gpudaemon", deadline=None)
settings.load_profile("gpudaemon")
