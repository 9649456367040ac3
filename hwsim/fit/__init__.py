"""Measured tables against the kernel models: error per table and device (validate), fits (calibrate), measuring a GPU (measure)."""
