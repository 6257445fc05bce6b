"""Is the explanation itself right?"""
