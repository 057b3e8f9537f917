# replaces: ridge_solution; loses: ridge_fit
# no constant at all
def ridge(X, Y, decay):
    middle = X
    inverse_rows = torch.linalg.solve(middle.T @ middle + decay * torch.eye(X.shape[1], dtype=X.dtype), middle.T)
    W = inverse_rows @ (Y)
    b = torch.zeros(Y.shape[1], dtype=X.dtype)
    h = (middle * inverse_rows.T).sum(1)
    return W, b, Y - (Y - X @ W - b) / (1 - h)[:, None]
