# replaces: sink_gradient_solution; loses: sink_gradient_row, sink_gradient_all
# the sign is lost
def sink_gradient(weights, g):
    return ((1 - weights.sum(-1)) * (weights * g).sum(-1)).sum((0, 2))
