"""Which map of a mask shows what the network uses?"""
