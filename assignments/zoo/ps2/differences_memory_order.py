# replaces: differences_solution; loses: differences_shape_test
# view(-1) fails on a transposed tensor, whose clone keeps its order in memory
def central_gradient(function, x, step):
    gradient = torch.zeros_like(x)
    for i in range(x.numel()):
        up, down = x.clone(), x.clone()
        up.view(-1)[i] += step
        down.view(-1)[i] -= step
        gradient.view(-1)[i] = (float(function(up)) - float(function(down))) / (2 * step)
    return gradient
