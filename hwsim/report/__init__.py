"""Trace -> tables, figures, one HTML file, a Perfetto trace. Sums and ratios, never physics."""
