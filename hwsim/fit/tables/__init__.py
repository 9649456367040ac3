"""Readers of measured tables, one kernel family per file: rows -> groups of equal device, stack and format, with arguments.

A reader is a function named like the table's file; its columns are those of the tables' own README. Adding a table is adding one.
"""
