"""What a learner does, in a real browser."""
