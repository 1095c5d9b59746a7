"""Can a reader of a label tell which passages activate the latent?"""
