# replaces: batch_loss_solution; loses: batch_loss_value_test, batch_loss_gradient_test
# Dot products in place of cosines.
def batch_loss(queries, passages, groups, temperature):
    """The contrastive loss of a batch, both ways, with other pairs of the same page left out.

    Args:
        queries: a tensor of shape (batch, d_model), of any length but zero; normalising is part of the cosine.
        passages: of the same shape; row i belongs to question i.
        groups: a list; pairs with equal entries share a page.
        temperature: above 0; the cosines are divided by it.

    Returns:
        A tensor without axes, in nats.
    """
    s = queries @ passages.T / temperature
    same = torch.tensor([[i != j and a == b for j, b in enumerate(groups)] for i, a in enumerate(groups)])
    s = s.masked_fill(same, -math.inf)
    target = torch.arange(len(groups))
    return (torch.nn.functional.cross_entropy(s, target) + torch.nn.functional.cross_entropy(s.T, target)) / 2
