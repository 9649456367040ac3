"""Seconds of one GPU kernel from its shape, the chip's datasheet and a few fitted parameters: one kernel family per file."""
