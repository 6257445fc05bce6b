"""Can I rely on it? One file per family of questions."""
