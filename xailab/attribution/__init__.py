"""Why this prediction?"""
