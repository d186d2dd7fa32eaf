"""Simulations of the kinds of statement that Graft makes: what a statement promises against how often it is true."""
