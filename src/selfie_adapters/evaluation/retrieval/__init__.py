"""Do labels find their topics among many?"""
