"""Operations that torch dispatched, as a trace tells of them, and what each takes (price.py)."""
