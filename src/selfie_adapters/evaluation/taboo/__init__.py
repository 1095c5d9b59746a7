"""Does a description without the name find its topic?"""
