"""mdlatent: latent maps of molecular-dynamics trajectories."""

__version__ = "0.1.0"
