"""amdgpu's `gpu_metrics`: a binary table of the firmware, told apart by the two revisions in its header.

Every revision kernels have shipped is known: 1.0 to 1.8 of discrete GPUs, 2.0 to 2.4 and 3.0 of APUs
(`layouts`), and 1.9, a stream that describes itself (`stream`). `table` takes them apart, `quantities` says
which unit a field has in which revision, `throttle` what holds clocks down.
"""
