"""Pictures of a policy's graph: where things go, SVG, an HTML page, Graphviz's dot."""
