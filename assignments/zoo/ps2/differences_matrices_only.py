# replaces: differences_solution; loses: differences_value_test, differences_shape_test
# two loops: right for matrices only
def central_gradient(function, x, step):
    gradient = torch.zeros_like(x)
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            move = torch.zeros_like(x)
            move[i, j] = step
            gradient[i, j] = (float(function(x + move)) - float(function(x - move))) / (2 * step)
    return gradient
