"""The exercises of each lesson, one module a topic, imported when an id first asks for it."""
