# replaces: sink_gradient_solution; loses: sink_gradient_row
# the diagonal of the Jacobian, p (1 - p), where the sink's own part belongs
def sink_gradient(weights, g):
    return -(weights * (1 - weights) * g).sum((0, 2, 3))
