"""Is the bridge entity of a two-hop question read from its states?"""
