"""Are the labels of known concepts their names?"""
