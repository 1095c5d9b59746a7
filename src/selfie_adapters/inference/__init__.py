"""What the frozen model generates, and how likely it is: for training, labelling and evaluation."""
