"""The web app of `selfie serve`: one model, one worker, a short queue."""
