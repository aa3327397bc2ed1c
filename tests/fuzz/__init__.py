"""Fuzzers: generated input of every kind that reaches the program, each held against properties, not examples.

A case is a number: it seeds the generator, so a failure is repeated with `make fuzz TARGET=name CASE=number`.
"""
