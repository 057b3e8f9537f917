# replaces: masked_solution; loses: masked_gradient_test
# values without a history
def masked_means(logits, targets, lengths):
    real = torch.arange(targets.shape[1]) < lengths[:, None]
    z = logits.detach().where(real[..., None], 0.0)  # before the softmax: a nan must not even be looked at
    losses = F.cross_entropy(z.mT, targets.where(real, 0), reduction="none").where(real, 0.0)
    sums = losses.sum(1)
    per_sentence = (sums / lengths.clamp(min=1)).sum() / (lengths > 0).sum().clamp(min=1)
    return sums.sum() / lengths.sum().clamp(min=1), per_sentence
