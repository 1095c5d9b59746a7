"""Do labels name what a prompt describes, or repeat its words?"""
