"""Can a reader of a label tell which texts activate the latent?"""
