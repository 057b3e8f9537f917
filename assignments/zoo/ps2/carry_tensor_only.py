# replaces: carry_solution; loses: carry_form_test
# a tuple becomes one tensor
def carry(state, fresh):
    if state is None:
        return None
    if isinstance(state, tuple):
        state = torch.stack(state)
    return state.detach().masked_fill(fresh[:, None], 0.0)
