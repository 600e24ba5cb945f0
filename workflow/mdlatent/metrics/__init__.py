"""What a latent space and its states are judged by: pure functions on arrays, one kind of measure per module.

Frames are compared within blocks of time, so that every number comes with an interval (`intervals`).
"""
