"""Faults that people have really made, to be put into a backend on purpose: the suite must see each of them.

`fault` says what a fault is, `wrapped` what most are made of, `catalogue` lists them all.
"""
