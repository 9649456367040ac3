"""Measured tables against the kernel models: error per table and device (validate), and new fits (calibrate)."""
