"""Do conversations about a label activate the SAE latent that it describes?"""
