# replaces: differences_solution; loses: differences_value_test, differences_shape_test
# moves all entries together: the sum of the gradient
def central_gradient(function, x, step):
    slope = (float(function(x + step)) - float(function(x - step))) / (2 * step)
    return torch.full_like(x, slope)
