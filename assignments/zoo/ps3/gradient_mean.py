# replaces: sink_gradient_solution; loses: sink_gradient_all
# a mean over the queries instead of their sum
def sink_gradient(weights, g):
    return -((1 - weights.sum(-1)) * (weights * g).sum(-1)).mean((0, 2))
