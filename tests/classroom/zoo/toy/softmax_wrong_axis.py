# replaces: softmax_solution; loses: softmax_test
def tempered_softmax(logits: Tensor, temperature: float) -> Tensor:
    return torch.softmax(logits / temperature, 0)
