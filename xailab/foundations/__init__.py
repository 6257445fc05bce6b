"""How does a network compute and learn?"""
