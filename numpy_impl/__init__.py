"""The reference: every product, sum and derivative written out in NumPy."""
