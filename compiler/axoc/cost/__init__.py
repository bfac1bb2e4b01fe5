"""Cost models: pure functions of facts and columns of candidates, in NumPy. Bytes and seconds out."""
