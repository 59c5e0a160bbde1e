raise RuntimeError("nobody may import this")
