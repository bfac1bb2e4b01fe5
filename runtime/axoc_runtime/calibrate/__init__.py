"""Measures what one accelerator does with the kernels of a training step, as tables (docs/calibration.md).

Needs torch only. What other packages would be needed for is left out, and the profile says so.
"""
