"""How fast the implementations are: against each framework's own layer, other engines, and the products alone."""
