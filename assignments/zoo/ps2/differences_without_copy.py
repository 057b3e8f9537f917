# replaces: differences_solution; loses: differences_value_test
# reshape does not copy: both sides are the same tensor
def central_gradient(function, x, step):
    gradient = torch.zeros_like(x)
    for i in range(x.numel()):
        up, down = x.reshape(-1), x.reshape(-1)  # both are x itself
        up[i] += step
        down[i] -= step
        gradient.view(-1)[i] = (float(function(up.view(x.shape))) - float(function(down.view(x.shape)))) / (2 * step)
    return gradient
