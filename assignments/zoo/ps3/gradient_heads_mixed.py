# replaces: sink_gradient_solution; loses: sink_gradient_all
# adds up the heads too
def sink_gradient(weights, g):
    return -((1 - weights.sum(-1)) * (weights * g).sum(-1)).sum()[None].expand(weights.shape[1])
