"""The Python interface, for notebooks and scripts: `import graft`."""
